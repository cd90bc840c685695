// What the vCPUs of a run did and saw, and three ways to find out whether that is sequentially
// consistent.
//
// Values: every write has a value of its own, never 0; a discard is a write of 0; every page starts
// at 0.
#pragma once

#include <cstdint>
#include <vector>

namespace xenspan::dsm::sim {

using Value = std::uint32_t;

struct Operation {
  std::uint16_t thread = 0;
  std::uint8_t page = 0;
  bool write = false;
  Value value = 0;  // written, or seen
};

using History = std::vector<Operation>;  // in the order in which the accesses were made

enum class Judgement { kConsistent, kViolation, kUndecided };

// The order of the accesses is itself a legal serialisation: each read sees the last write before
// it.
Judgement check_witness(const History& history);

// Does not look at the order between threads, except that writes to one page have growing values in
// the order in which the page's exclusive right went round: program order, reads-from, that write
// order and from-reads have no cycle (Shasha and Snir, TOPLAS 10(2) 1988). Undecided when a page
// was discarded (zeros are not unique).
Judgement check_order_graph(const History& history);

// Trusts nothing but program order: searches for any legal serialisation. Undecided after `budget`
// states.
Judgement check_by_search(const History& history, unsigned budget);

}  // namespace xenspan::dsm::sim
