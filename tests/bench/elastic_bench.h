// What a program gains from a host that joins while it runs, and keeps when one leaves: pieces of
// equal work a second, on one host, on two, on one again.
#pragma once

#include <string>

#include "base/result.h"
#include "tests/bench/testbed.h"

namespace xenspan::bench {

// "elastic.add" and "elastic.drain"; `runs` of both.
Status measure_elastic(const Testbed& bed, const std::string& guests, const std::string& xenspan,
                       unsigned runs);
// "elastic.add.pause" and "elastic.drain.pause": how long threads on two hosts stand still at most
// while a third one joins and leaves.
Status measure_elastic_pauses(const Testbed& bed, const std::string& guests,
                              const std::string& xenspan, unsigned runs);

}  // namespace xenspan::bench
