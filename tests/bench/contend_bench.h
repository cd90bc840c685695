// Two hosts that write one page as fast as they can: operations a second with and without the hold
// window, and whether both advance.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "tests/bench/testbed.h"

namespace xenspan::bench {

struct ContendBench {
  const char* name;
  const char* what;  // what the guest `contend` is told
};
const std::vector<ContendBench>& contend_benches();

Status measure(const ContendBench& bench, const Testbed& bed, const std::string& guests,
               unsigned runs, double seconds);

}  // namespace xenspan::bench
