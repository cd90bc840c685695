// How long a page fault across two hosts takes, against a TCP round trip between the same two hosts
// in the same run.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "tests/bench/testbed.h"

namespace xenspan::bench {

struct FaultBench {
  const char* name;
  const char* command;         // what fault_probe is told
  std::size_t baseline_bytes;  // the answer's size in the TCP round trip
};
const std::vector<FaultBench>& fault_benches();

// Batches of the guest and of the raw exchange in turn, `rounds` times.
Status measure(const FaultBench& bench, const Testbed& bed, const std::string& guests,
               unsigned rounds);

}  // namespace xenspan::bench
