// How fast a parallel program runs across hosts, against the same binary natively on the same
// cores.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "tests/bench/testbed.h"

namespace xenspan::bench {

struct Program {
  const char* name;
  std::vector<std::string> full, quick;  // arguments
  bool apart = false;  // with the argument `apart` it is two processes that share no memory
};
const std::vector<Program>& programs();

struct SpeedupOptions {
  std::string guests;  // folder of the guest programs
  unsigned runs = 5;
  bool quick = false;
};

// "speedup.NAME": two hosts of one vCPU each against two native threads on the same two cores;
// ratio = native / spanning. Beside it the same with one native thread, and, for programs that have
// it, with two native processes that share no memory: two hosts that are one machine here share its
// caches, and what both have read lies there twice.
Status measure_speedup(const Program& program, const Testbed& bed, const SpeedupOptions& options);
// "onehost.NAME": one host with one vCPU against one native thread on the same core; ratio =
// spanning / native.
Status measure_one_host(const Program& program, const Testbed& bed, const SpeedupOptions& options);

}  // namespace xenspan::bench
