// What everybody may know of one domain: its state, members, placement and counters.
//
// The home writes it, sends it to the other hosts on every change and once a second, and each
// daemon puts it into its own xenstore. A record from a peer is checked. Threading: plain values.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/daemon/json_fields.h"
#include "xenstore-schema/records.h"

namespace xenspan::daemon {

struct DomainMember {
  std::string host;
  xenstore::MemberState state = xenstore::MemberState::kJoining;
  int vcpus = 0;
  std::string error;
  xenstore::Counters counters;
  bool forgotten = false;  // removed: the home keeps its number, nobody is told of it
};

struct DomainVcpu {
  std::string host;
  int core = 0;
  std::uint32_t threads = 0;  // guest threads there now
};

struct DomainRecord {
  std::string uuid;
  std::string name;
  xenstore::DomainState state = xenstore::DomainState::kCreating;
  std::string home;
  std::vector<std::string> former_homes;  // the last one last
  xenstore::Backend kind = xenstore::Backend::kUsermode;
  uid_t uid = 0;
  std::string user;
  xenstore::Transport transport = xenstore::Transport::kNone;
  xenstore::Policy policy = xenstore::Policy::kSpread;
  std::string last_move;     // by the policy, and why
  std::uint64_t memory = 0;  // bytes
  std::string command;
  std::optional<std::uint32_t> exit_status;
  std::string error;
  std::uint64_t created = 0;  // seconds since 1970
  std::uint64_t ended = 0;    // 0: not yet
  std::vector<DomainMember> members;
  std::vector<DomainVcpu> vcpus;

  // One number per vCPU; what does not fit is ignored.
  void set_threads(const std::vector<std::uint64_t>& on_vcpus);
  std::vector<std::uint32_t> threads() const;
  bool over() const {
    return state == xenstore::DomainState::kEnded || state == xenstore::DomainState::kFailed;
  }
};

Json to_json(const DomainRecord& record);
Result<DomainRecord> domain_record_from(const Json& object);

// Counters as the worker sends them (`counters` event), with the names of
// dom0-daemon/slice/control.md.
Json to_json(const xenstore::Counters& counters);
xenstore::Counters counters_from(const Json& object);

}  // namespace xenspan::daemon
