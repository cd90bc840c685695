// How a home reaches the slices of its domains, and how this host runs slices for other homes.
//
// SliceRouter implements SliceLinks: a slice on this host is a LocalSlices process, a slice
// elsewhere is a message to that host's daemon. PeerSlices is the other end of those messages.
// cluster.md documents them. Threading: the loop's thread.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "dom0-daemon/daemon/cluster.h"
#include "dom0-daemon/daemon/domain.h"
#include "dom0-daemon/daemon/local_slices.h"

namespace xenspan::daemon {

// Finds the domain that an event is for; nullptr when it has ended, or its home is elsewhere now.
using FindDomain = std::function<Domain*(const std::string& uuid)>;

class PeerSlices;

class SliceRouter : public SliceLinks {
 public:
  SliceRouter(const Config& config, Cluster& cluster, LocalSlices& slices, FindDomain find);
  // Whom slices here obey whose domain's home has moved.
  void set_peers(PeerSlices* peers) { peers_ = peers; }

  Status create_slice(const std::string& host, const std::string& uuid, const User& user,
                      Json create, std::vector<UniqueFd> fds,
                      std::uint64_t promised_memory) override;
  void send_to_slice(const std::string& host, const std::string& uuid,
                     const Json& message) override;
  void set_slice_cores(const std::string& host, const std::string& uuid,
                       const std::vector<int>& cores) override;
  void stop_slice(const std::string& host, const std::string& uuid,
                  const std::string& cause) override;
  std::vector<std::string> bound_here(const std::string& uuid) const override;
  void name_heir(const std::string& host, const std::string& uuid,
                 const std::string& heir) override;
  void claim_slice(const std::string& host, const std::string& uuid) override;
  void follow(const std::string& uuid, const std::string& heir) override;
  // A message about one of our domains from the daemon of one of its hosts. False: not such a
  // message.
  bool handle(const std::string& host, const std::string& op, const Json& message);

 private:
  void pass_on(const std::string& host, const std::string& uuid, Json message);

  const Config& config_;
  Cluster& cluster_;
  LocalSlices& slices_;
  FindDomain find_;
  PeerSlices* peers_ = nullptr;
};

class PeerSlices {
 public:
  PeerSlices(const Config& config, Cluster& cluster, LocalSlices& slices);
  // Where events of a slice go whose domain's home has moved here.
  using AtHome = std::function<void(const std::string& op, const Json& message)>;
  void set_at_home(AtHome at_home) { at_home_ = std::move(at_home); }

  // Which domain of this host is the slice of a domain under Xen.
  using XenDomainOf =
      std::function<std::optional<unsigned>(const std::string& uuid, const std::string& home)>;
  void set_xen(XenDomainOf domain_of) { xen_domain_of_ = std::move(domain_of); }

  // A slice here will obey `heir` as its home, when that claims it.
  void name_heir(const std::string& uuid, const std::string& heir) { heirs_[uuid] = heir; }
  void claim(const std::string& uuid, const std::string& heir);
  // To the home of a slice here, with `op` and `uuid`. False: this host began its domain, and has
  // not given it away.
  bool tell_home(const std::string& uuid, const Json& message);
  void ended(const std::string& uuid);
  // A home's message. False: not such a message.
  bool handle(const std::string& home, const std::string& op, const Json& message);
  // Its domains are over.
  void home_lost(const std::string& home, const std::string& cause);
  // For the orderly end of this daemon.
  void stop_all(const std::string& cause);

 private:
  void create(const std::string& home, const std::string& uuid, const Json& message);
  void set_cores(const std::string& uuid, const Json& message);
  void learn_heir(const std::string& home, const std::string& uuid, const Json& message);

  const Config& config_;
  Cluster& cluster_;
  LocalSlices& slices_;
  XenDomainOf xen_domain_of_;
  AtHome at_home_;
  std::map<std::string, std::string> homes_;  // of the slices here, by uuid
  std::map<std::string, std::string> heirs_;  // who may claim them
};

}  // namespace xenspan::daemon
