// Domains under Xen whose home is this host and that are declared as spanning: found, spread over
// their hosts, and followed to their end.
//
//   found (@introduceDomain, or at the daemon's start) -> its hosts are asked for slices, once the
//   guest has started the vCPUs that leave -> those that made one get it, by a Domain of the table
//   -> its end. A host that cannot is left out, with the reason; when none is left the guest runs
//   on here alone.
//
// From the moment a Domain starts to take the guest's memory over until it is over, the guest can
// only run with all its slices. /local/domain/ID/xenspan/spans says so in xenstore for a daemon
// that comes after this one: it cannot put the memory together again, and stops the guest with that
// cause. Threading: the loop's thread. Ownership: everything is borrowed.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "dom0-daemon/daemon/cluster.h"
#include "dom0-daemon/daemon/daemon_config.h"
#include "dom0-daemon/daemon/domain_table.h"
#include "dom0-daemon/daemon/xen_declaration.h"
#include "dom0-daemon/daemon/xen_host.h"
#include "xenstore-schema/store.h"

namespace xenspan::daemon {

class XenDomains : public DomainTable::XenSlices {
 public:
  XenDomains(const Config& config, Cluster& cluster, DomainTable& domains, XenHost& xen,
             std::function<HostRecord()> own_record);
  // The store of this host, where guests are; nullptr: none now.
  void set_store(xenstore::Store* store) { store_ = store; }

  // Domains may have come or gone.
  void look();
  // Once a second.
  void tick();
  // A peer's message about a slice of one of them. False: not such a message.
  bool handle(const std::string& host, const std::string& op, const Json& message);
  void host_lost(const std::string& host, const std::string& cause);
  // From the domain table.
  void domain_changed(const DomainRecord& record);
  void domain_over(const Domain& domain);
  Status may_hold_slice(const std::string& uuid, const HostRecord& host) override;
  void prepare_slice(const std::string& uuid, const std::string& host,
                     std::function<void(Status done)> done) override;

 private:
  enum class Phase {
    kWaiting,   // for hosts that are not connected yet, or for vCPUs that are not up yet
    kMaking,    // the hosts make their slices
    kSpanning,  // a Domain has it
    kAlone,     // it runs here, without slices
    kStopped,   // it is paused for good
  };
  struct Guest {
    XenGuest xen;
    std::string name;
    XenDeclaration declared;
    std::uint64_t memory = 0;  // bytes
    Phase phase = Phase::kWaiting;
    int ticks = 0;  // in this phase
    bool took_over = false;
    bool seen_paused = false;  // at the last tick
    bool paused = false;       // as its slices were told
    std::set<std::string> asked, made;
    std::map<std::string, std::string> refused;  // host -> why
    // Hosts that join while it spans.
    std::map<std::string, std::function<void(Status done)>> joining;
  };

  // Of all guests now: what is done to one may make it go.
  std::vector<std::string> uuids() const;
  void found(const XenGuest& xen);
  std::optional<XenDeclaration> declaration_of(const XenGuest& xen, const std::string& name);
  void gone(Guest& guest);
  void advance(Guest& guest);
  bool hosts_are_known(Guest& guest);
  void ask(Guest& guest);
  void ask_host(Guest& guest, const std::string& host, const std::string& config);
  void refuse(Guest& guest, const std::string& host, const std::string& why);
  void span(Guest& guest);
  void alone(Guest& guest, const std::string& why);
  void stop(Guest& guest, const std::string& why);
  void end_slices(Guest& guest);
  void end_slice(Guest& guest, const std::string& host);
  std::string refusal_of(const Guest& guest, const HostRecord& record) const;
  void prepared(Guest& guest, const std::string& host, const Status& status);
  void follow_pause(Guest& guest);
  // Without slices, as everybody may know it.
  DomainRecord record_of(const Guest& guest, xenstore::DomainState state,
                         const std::string& why) const;
  std::string reasons(const Guest& guest) const;
  std::uint64_t memory_of(unsigned id);
  std::string mark(const Guest& guest) const;
  std::chrono::milliseconds start_limit() const;

  const Config& config_;
  Cluster& cluster_;
  DomainTable& domains_;
  XenHost& xen_;
  const std::function<HostRecord()> own_record_;
  xenstore::Store* store_ = nullptr;
  std::map<std::string, Guest> guests_;  // declared ones, by uuid
  std::set<std::string> faults_told_;
};

}  // namespace xenspan::daemon
