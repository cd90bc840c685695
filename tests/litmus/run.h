// Runs one shape in one variant many times, over the domain's vCPUs.
//
// Every worker is a thread of its own; the calling thread is the first. There are as many as
// processors, or as the shape has threads if that is more. From round to round the workers change
// roles, and with them the hosts. Afterwards the caller alone counts. Call from one thread at a
// time.
#pragma once

#include <cstdint>
#include <set>

#include "tests/litmus/round.h"
#include "tests/litmus/shapes.h"
#include "tests/litmus/tally.h"

namespace xenspan::litmus {

struct Settings {
  std::uint64_t iterations = 0;
  Pages pages = Pages::kOne;
  unsigned burst = 8;
  unsigned processors = 1;
};

struct Outcomes {
  Tally tally;
  unsigned workers = 0;
  std::set<int> vcpus;  // where the workers ran
  double seconds = 0;
};

// `shape` is an index into shapes().
Outcomes run_shape(std::size_t shape, Variant variant, const Settings& settings);

}  // namespace xenspan::litmus
