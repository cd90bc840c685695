// Affinity: which vCPUs belong on one host, from who takes pages from whom.
//
// A graph is cut into parts of limited size so that little weight is cut (the weights are faults
// between vCPUs, the parts are hosts). Small problems are solved exactly, by depth first search
// with a bound; large ones by a greedy start and pairwise exchange (Kernighan and Lin, An efficient
// heuristic procedure for partitioning graphs, 1970). The answer depends on nothing but the
// problem. Threading: pure functions.
#pragma once

#include <cstdint>
#include <vector>

namespace xenspan::daemon {

struct AffinityProblem {
  // [i][j]: faults of vCPU i on pages that it took from vCPU j. Square.
  std::vector<std::vector<std::uint64_t>> takes;
  std::vector<int> host;    // of each vCPU now, an index into `room`
  std::vector<int> room;    // vCPUs a host can have; never less than it has now
  std::vector<bool> fixed;  // vCPUs that stay where they are; empty: none
  std::uint64_t price = 0;  // faults that moving one vCPU has to save
};

struct Affinity {
  std::vector<int> host;                // of each vCPU
  std::uint64_t before = 0, after = 0;  // faults between hosts
};

Affinity group_vcpus(const AffinityProblem& problem);

}  // namespace xenspan::daemon
