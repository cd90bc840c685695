// What one feature of the engine is worth: a guest made for it, with the feature and without.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "tests/bench/testbed.h"

namespace xenspan::bench {

struct WorthBench {
  const char* name;
  const char* feature;
  std::vector<std::string> guest;  // program and arguments
  const char* always_without;      // other features that would do the same work, or ""
};
const std::vector<WorthBench>& worth_benches();

Status measure(const WorthBench& bench, const Testbed& bed, const std::string& guests,
               unsigned runs);

}  // namespace xenspan::bench
