// What a write fault costs when many hosts hold copies, against one holder, with invalidations at
// the same time and one after the other.
#pragma once

#include <string>

#include "base/result.h"
#include "tests/bench/testbed.h"

namespace xenspan::bench {

// A writer, the readers, and the home.
inline constexpr unsigned kSharersReaders = 8, kSharersHosts = kSharersReaders + 2;
inline constexpr const char* kSharersDelay = "200us";  // one way: the wire is what counts

// "sharers", on a bed of kSharersHosts hosts.
Status measure_sharers(const Testbed& bed, const std::string& guests, unsigned rounds);

}  // namespace xenspan::bench
