#include "dom0-daemon/hypervisor/usermode/layout_table.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace xenspan::hypervisor::usermode {

LayoutTable::LayoutTable() {
  void* memory = ::mmap(nullptr, kWindowPages, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  bytes_ = static_cast<std::uint8_t*>(memory);
}

LayoutTable::~LayoutTable() { ::munmap(bytes_, kWindowPages); }

void LayoutTable::learn(std::uint64_t address, const Range& range, int prot) noexcept {
  const std::uint64_t block = address & ~(kBlock - 1);
  const std::uint64_t start = std::max({range.start, block, kWindowStart});
  const std::uint64_t end = std::min({range.end, block + kBlock, kWindowEnd});
  if (start >= end) return;
  const auto byte =
      static_cast<std::uint8_t>(kKnown | (prot & (PROT_READ | PROT_WRITE | PROT_EXEC)));
  std::memset(bytes_ + gfn_of(start), byte, (end - start) >> dsm::kPageShift);
}

void LayoutTable::forget(const Range& range) noexcept {
  const dsm::Gfn first = gfn_of(range.start), end = gfn_of(range.end);
  constexpr std::uint64_t kTablePage = 4096;
  const std::uint64_t whole_first = (first + kTablePage - 1) & ~(kTablePage - 1);
  const std::uint64_t whole_end = end & ~(kTablePage - 1);
  if (whole_first >= whole_end) {
    std::memset(bytes_ + first, kUnknown, end - first);
    return;
  }
  // Untouched stretches of a large reservation cost nothing: whole pages of the table are given
  // back.
  std::memset(bytes_ + first, kUnknown, whole_first - first);
  ::madvise(bytes_ + whole_first, whole_end - whole_first, MADV_DONTNEED);
  std::memset(bytes_ + whole_end, kUnknown, end - whole_end);
}

}  // namespace xenspan::hypervisor::usermode
