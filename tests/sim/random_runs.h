// Seeded random schedules: the real machine on 2 to 8 hosts, or in a crowd on 9 to 256, every
// delivery, fault and step in an order drawn by lot.
//
// Schedule number n of a seed depends on (seed, n) alone, so that one schedule can be run again by
// itself.
#pragma once

#include <cstdint>
#include <string>

#include "tests/sim/system.h"

namespace xenspan::dsm::sim {

struct RandomOptions {
  std::uint64_t seed = 1;
  std::uint64_t first = 0;      // number of the first schedule
  std::uint64_t schedules = 1;  // how many
  bool members = false;         // 3 to 5 hosts that come and go, slots move
  bool losses = false;          // with `members`: none comes or goes, but one dies
  bool crowds = false;          // 9 to 64 hosts, or up to 256 with the wide machine
  Mutation mutation = Mutation::kNone;
  bool history_alone = false;     // judge nothing but the history, and not by its own order
  unsigned search_budget = 3000;  // states, for check_by_search
};

struct RandomResult {
  std::uint64_t schedules = 0, events = 0, accesses = 0, repeated = 0, mutated = 0, wide = 0,
                stopped = 0;
  std::uint64_t by_graph = 0, by_search = 0, search_undecided = 0;
  std::uint64_t by_hosts[kMaxSimHosts + 1] = {};
  std::string violation;          // empty: none
  std::uint64_t violated_at = 0;  // number of the schedule
  std::string trace;              // its events

  void add(const RandomResult& other);
};

// Stops at the first violation.
RandomResult run_random(const RandomOptions& options);
// The same schedules, shared out among so many threads; each stops at its first violation.
RandomResult run_random_in(unsigned threads, const RandomOptions& options);

}  // namespace xenspan::dsm::sim
