// What directory and engine cost in memory, from the sizes of the real types.
//
// The table has an entry for each of the domain's pages on every host that uses the page's chunk.
// In a domain of more than 64 hosts copysets stand in rows of their own, at one host each. What
// does not grow with the domain's memory is counted apart. Pure functions.
#pragma once

#include <cstdint>

namespace xenspan::dsm::scale {

struct Memory {
  double entry = 0;       // bytes a page and host: the entry,
  double chunk_flag = 0;  // the share of its chunk's flag,
  double row = 0;         // and of the copysets' rows, at the host that manages most
  double page() const { return entry + chunk_flag + row; }
  // Bytes a host, however large the domain's memory is.
  std::uint64_t engine = 0;          // the engine object: requests, windows, counters, slot table
  std::uint64_t parked_at_most = 0;  // addresses for early messages; memory follows use
};

Memory memory_of(unsigned hosts, bool wide);
// Bytes one early message takes.
std::uint64_t parked_message_bytes();

}  // namespace xenspan::dsm::scale
