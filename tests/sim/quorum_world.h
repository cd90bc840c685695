// A domain's members on a simulated cluster: seeded crashes, cuts, delays, losses, clocks that run
// at different speeds, and hosts that stand still, at any step of the real machine
// (dom0-daemon/quorum); and hosts that join, leave and come back, and a home that moves,
// at any of these moments.
//
// Checked after every event: no vCPU may run on a member when anybody is in a later epoch without
// that member; an epoch has the same members and home for everybody. At the end, when nothing
// changes any more: each live member runs in one and the same epoch with all the others that run,
// or is fenced; and what was expected of simple faults has come about in time. Threading: one
// world, one thread.
#pragma once

#include <cstdint>
#include <map>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "dom0-daemon/quorum/quorum.h"

namespace xenspan::sim {

// Errors planted around the machine; the checks have to find each.
enum class QuorumError : std::uint8_t {
  kNone,
  kLeaseTooLong,    // vCPUs run on for a while
  kGrantTooShort,   // members promise less than others count on
  kEchoForged,      // a beat is echoed although nothing was granted
  kTwoHomes,        // both halves think that theirs is the home
  kPromiseForgets,  // what was accepted before is not told
  kMemberForgets,   // a member starts anew in the middle
  kClockRuns,       // a clock runs three times as fast
  kFenceIgnored,    // vCPUs run without asking for the lease
  kAcceptsLost,     // acceptances never arrive
  kEndsLater,       // one that leaves is said to have ended, and has not
  kJoinsUnasked,    // one that joins counts itself in before the others do
  kJoinsAnew,       // one starts anew while it still counts as a member
  kHomeUntold,      // who enters an epoch is not told which member is the home
  kCount,
};
const char* text_of(QuorumError error);

struct QuorumOptions {
  std::uint64_t seed = 1;
  QuorumError error = QuorumError::kNone;
  bool trace = false;
};

struct QuorumCounts {
  std::uint64_t schedules = 0, events = 0, epochs = 0, crashes = 0, cuts = 0, slow = 0, fenced = 0,
                holds = 0, resumed = 0, lost_homes = 0, joins = 0, leaves = 0, moves = 0;
  std::int64_t slowest_ms = 0;  // from a simple crash to the last survivor that knows
  void add(const QuorumCounts& other);
};

// One schedule. Empty, or what was violated.
std::string run_quorum(const QuorumOptions& options, QuorumCounts& counts);

}  // namespace xenspan::sim
