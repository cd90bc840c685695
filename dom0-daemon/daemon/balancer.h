// Moves vCPUs of the domains whose home is here, as their policies say (balance.h decides, this
// looks and carries out).
//
// Loads come with the hosts' records once a second; who fights with whom is asked of the slices
// every few seconds. A move is one like that of `xenspan migrate`; one at a time for each domain.
// Threading: the loop's thread. Ownership: borrows the table.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "dom0-daemon/daemon/balance.h"
#include "dom0-daemon/daemon/domain_table.h"
#include "dom0-daemon/daemon/host_record.h"

namespace xenspan::daemon {

class Balancer {
 public:
  // What is known of a host; nothing when it is not connected.
  using RecordOf = std::function<std::optional<HostRecord>(const std::string& host)>;

  Balancer(DomainTable& domains, RecordOf record_of)
      : domains_(domains), record_of_(std::move(record_of)) {}
  // Once a second.
  void tick();

 private:
  struct State {
    LoadBalance load;
    AffinityBalance affinity;
    std::deque<BalanceMove> to_do;
    bool busy = false;  // a move or a question is under way
    double next_look = 0;
  };

  void look_at_load(Domain& domain, State& state, double now);
  void look_at_fights(Domain& domain, State& state, double now);
  void on_fights(const std::string& uuid, const Json& stats);
  void move(Domain& domain, State& state, const BalanceMove& move);

  DomainTable& domains_;
  const RecordOf record_of_;
  std::map<std::string, State> states_;  // by uuid
};

}  // namespace xenspan::daemon
