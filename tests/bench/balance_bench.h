// What a host that is shared with other programs costs, and what helps: other work has most of the
// second host's core.
#pragma once

#include <string>

#include "base/result.h"
#include "tests/bench/testbed.h"

namespace xenspan::bench {

// "balance.static" (equal shares, policy load against spread) and "balance.dynamic" (pieces that
// each thread takes when it is free).
Status measure_balance(const Testbed& bed, const std::string& guests, unsigned runs, bool quick);

}  // namespace xenspan::bench
