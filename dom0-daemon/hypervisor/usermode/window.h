// The guest's address window: the one range of virtual addresses that is guest memory, the same on
// every host.
//
// It starts low so that non-PIE programs (linked at 0x400000) find their place, and ends below
// where Linux puts position-independent executables, libraries and stacks, so the slice's own
// program never collides with its guest.
#pragma once

#include <cstdint>

#include "dsm-rdma/types.h"

namespace xenspan::hypervisor::usermode {

inline constexpr std::uint64_t kWindowStart = 0x10000;  // above any vm.mmap_min_addr
inline constexpr std::uint64_t kWindowEnd = std::uint64_t{1}
                                            << 40;  // 1 TiB of addresses, not of memory
inline constexpr std::uint64_t kWindowPages = (kWindowEnd - kWindowStart) >> dsm::kPageShift;

constexpr bool in_window(std::uint64_t address) {
  return address >= kWindowStart && address < kWindowEnd;
}
// gfn 0 is the first page of the window.
constexpr dsm::Gfn gfn_of(std::uint64_t address) {
  return (address - kWindowStart) >> dsm::kPageShift;
}
constexpr std::uint64_t address_of(dsm::Gfn gfn) { return kWindowStart + (gfn << dsm::kPageShift); }

// Where things go at start: PIE program, brk after it, interpreter, mmap area (grows up from
// kMmapBase), stack at the end.
inline constexpr std::uint64_t kPieBase = 0x5500000000;
inline constexpr std::uint64_t kInterpreterBase = 0x7f00000000;
inline constexpr std::uint64_t kMmapBase = 0x8000000000;
inline constexpr std::uint64_t kStackTop = kWindowEnd - 0x10000;
inline constexpr std::uint64_t kStackBytes = 8 << 20;

}  // namespace xenspan::hypervisor::usermode
