// How fast a thread reads memory that another host owns, from end to end, with and without
// prefetch, against what iperf3 and a plain TCP stream move between the same two hosts.
#pragma once

#include <string>

#include "base/result.h"
#include "tests/bench/testbed.h"

namespace xenspan::bench {

// "prefetch.sequential"; `mib` is what is read in each of `runs` runs.
Status measure_prefetch(const Testbed& bed, const std::string& guests, unsigned runs, unsigned mib);

}  // namespace xenspan::bench
