// What the home's daemon knows of a domain, as it goes to the daemon of the heir when the home's
// role moves. The slices have moved their part before (dom0-daemon/slice/control.md).
//
// The bytes come from a peer: role_state_from() checks them all. Threading: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/daemon/domain_record.h"
#include "dom0-daemon/daemon/host_record.h"
#include "dom0-daemon/daemon/user.h"

namespace xenspan::daemon {

struct RoleState {
  // One number of the domain (an index among its hosts), used or not.
  struct Number {
    HostRecord host;  // of one that is gone: its name only
    DomainMember member;
    int port = 0;
    bool gone = false;
    bool ended = false;
    bool lost = false;
    std::uint32_t incarnation = 0;
  };
  DomainRecord record;  // `members` are in `numbers`
  User user;
  std::vector<Number> numbers;
  std::string secret;
  bool memory_promised = false;
  bool stats = false;
  std::string stats_host;  // where the command waits that started the domain
  std::uint64_t prefetch = 0;
  std::vector<std::string> without;
  std::uint64_t lost_after = 0;    // ms
  std::uint64_t start_within = 0;  // ms
  std::uint64_t first_hosts = 0;
  std::uint64_t epoch = 1;
  int home = 0;          // the heir's number
  int engine_home = -1;  // -1: has left
  std::string leaves;    // the home until now
  bool forget = false;   // and is to be forgotten then
};

Json to_json(const RoleState& state);
// `own_host`: whose users the state's user is one of.
Result<RoleState> role_state_from(const Json& object, const std::string& own_host);

}  // namespace xenspan::daemon
