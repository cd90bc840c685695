// What iperf3 moves between two hosts of a test bed, from the second to the first, in MB/s: one TCP
// stream, each end on its host's core. For the benchmark program's one thread.
#pragma once

#include "base/result.h"
#include "tests/bench/testbed.h"

namespace xenspan::bench {

Result<double> iperf_rate(const BedHost& receiver, const BedHost& sender, unsigned mib);

}  // namespace xenspan::bench
