// Domains that this host makes for homes elsewhere: the local half of each slice of a spanning
// domain under Xen.
//
// A home asks for one (`xen-slice-make`), and gets `xen-slice-made` or `xen-slice-refused`; it ends
// them (`xen-slice-end`). xl makes the domain, paused, of the home's xl file with another name and
// uuid and without devices; its worker is started by PeerSlices, as for user-mode domains. The xl
// file is kept in the run directory as long as the domain is there, under the domain's uuid: so a
// daemon that starts finds what a killed one has left, and ends it. cluster.md has the messages.
// Threading: the loop's thread. Ownership: `xen` is borrowed.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "dom0-daemon/daemon/cluster.h"
#include "dom0-daemon/daemon/daemon_config.h"
#include "dom0-daemon/daemon/event_loop.h"
#include "dom0-daemon/daemon/xen_host.h"
#include "dom0-daemon/daemon/xl_command.h"

namespace xenspan::daemon {

class XenPeerSlices {
 public:
  XenPeerSlices(EventLoop& loop, const Config& config, Cluster& cluster, XenHost& xen);

  // Ends what a daemon before this one has left.
  void remove_leftovers();
  // A home's message. False: not such a message.
  bool handle(const std::string& home, const std::string& op, const Json& message);
  // The local domain that is this home's slice.
  std::optional<unsigned> domain_of(const std::string& uuid, const std::string& home) const;
  void home_lost(const std::string& home);
  // Something about the domains of this host has changed.
  void look();
  void end_all();
  bool all_over() const { return slices_.empty() && leftovers_ == 0; }

 private:
  struct Slice {
    std::string home;
    std::string own_uuid;
    std::string file;
    unsigned domain = 0;  // 0: being made
    bool ending = false;
    bool told_shutdown = false;
    bool paused = false;  // because the home's domain is
    Json next;            // what the home asks for when this one has ended; null: nothing
    std::unique_ptr<XlCommand> command;
  };

  void make(const std::string& home, const std::string& uuid, const Json& message);
  void made(const std::string& uuid, const Status& status);
  void end(const std::string& uuid);
  void pause(Slice& slice, bool paused);
  void refuse(const std::string& home, const std::string& uuid, const std::string& error);
  std::optional<unsigned> find(const std::string& own_uuid);
  std::string folder() const { return config_.own_dir() + "/xen"; }

  EventLoop& loop_;
  const Config& config_;
  Cluster& cluster_;
  XenHost& xen_;
  std::map<std::string, Slice> slices_;  // by the spanning domain's uuid
  std::map<std::string, std::unique_ptr<XlCommand>> cleaning_;
  int leftovers_ = 0;
};

}  // namespace xenspan::daemon
