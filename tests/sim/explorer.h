// Every interleaving of a small system: breadth-first search over all states the real machine can
// reach.
//
// Each vCPU may choose any op on any page each time, so one search covers every program of that
// length. Breadth-first, so the trace of a violation is a shortest one. A state is remembered by a
// 64-bit fingerprint (hash compaction, as in SPIN and TLC): for ten million states the chance that
// any two share one is below 3e-6.
#pragma once

#include <cstdint>
#include <string>

#include "tests/sim/system.h"

namespace xenspan::dsm::sim {

struct Exploration {
  std::uint64_t states = 0, transitions = 0;
  std::uint64_t ends = 0;     // states with every op done and nothing in flight
  std::uint64_t stopped = 0;  // states where a living host waits for a dead one for ever
  bool complete = true;       // false: stopped at the limit
  std::string violation;      // empty: none
  std::string trace;          // how to get there, one event a line
};

Exploration explore(const Shape& shape, std::uint64_t limit);

}  // namespace xenspan::dsm::sim
