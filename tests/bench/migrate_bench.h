// How long a running thread stands still while its vCPU moves to another host, as the thread itself
// sees it, against a TCP round trip between the same two hosts.
#pragma once

#include <string>

#include "base/result.h"
#include "tests/bench/testbed.h"

namespace xenspan::bench {

// "migrate.vcpu"; `runs` moves there and as many back.
Status measure_migration(const Testbed& bed, const std::string& guests, const std::string& xenspan,
                         unsigned runs);

}  // namespace xenspan::bench
