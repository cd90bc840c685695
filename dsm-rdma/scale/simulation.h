// One simulated domain: the real protocol machine on every host, on the modelled network, from one
// event to the next.
//
// A host has a vCPU, which makes the accesses of a pattern and carries out the answers to its own
// faults, and a service thread, which answers the others: as in the engine, one message after the
// other each. Early messages are parked and looked at again as the engine does. Not modelled: what
// the engine adds for speed (prefetch, hold window, migratory pages). Every read is checked: it
// sees the last write; at the end every copyset is compared with who holds the page. Nothing is
// decided by a clock or by the machine it runs on: same options, same figures.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dsm-rdma/scale/network.h"
#include "dsm-rdma/scale/pattern.h"

namespace xenspan::dsm::scale {

struct Options {
  static constexpr std::uint64_t kWarmUp = 96;

  Pattern pattern = Pattern::kExchange;
  unsigned hosts = 2;  // 2 .. 1024
  Costs costs;
  Time think_ns = 2000;           // between two accesses of a vCPU
  std::uint64_t faults = 50'000;  // to be measured, after kWarmUp of each host that are not
  std::uint64_t seed = 1;
  bool wide = false;  // the machine for more than 64 hosts, for fewer too
};

// Of one kind of fault.
struct FaultFigures {
  std::uint64_t faults = 0;
  double messages = 0, messages_most = 0;                  // a fault, between hosts: mean and most
  double bytes = 0;                                        // a fault, mean
  double trips_median = 0, trips_mean = 0, trips_p99 = 0;  // latency in round trips
};

struct Figures {
  FaultFigures all, reads, writes;
  std::uint64_t messages = 0;  // between hosts, all of the run
  std::uint64_t accesses = 0, checked_reads = 0;
  std::uint64_t parked_most = 0;   // early messages kept at one host at one time
  std::uint64_t entries_most = 0;  // pages that one host knows something about
  std::uint64_t rows_most = 0;     // pages one host keeps a copyset for
  Time virtual_ns = 0;
  std::string violation;  // empty: none
};

Figures simulate(const Options& options);

}  // namespace xenspan::dsm::scale
