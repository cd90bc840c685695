// dom0-daemon/hypervisor/usermode/address_space.h: mmap and its family with the arguments of any
// thread, remote ones too. After every call mappings are disjoint, in order, in the window, and add
// up; what the home is told to do to pages stays in the window.
//
// Input: calls of which one, then an address, a length and flags.
#include <sys/mman.h>

#include "dom0-daemon/hypervisor/usermode/address_space.h"
#include "dom0-daemon/hypervisor/usermode/window.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/demand.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint64_t kLimit = std::uint64_t{1} << 30;

void check_range(const Range& range) {
  DEMAND(range.start < range.end && range.start >= kWindowStart && range.end <= kWindowEnd);
  DEMAND(range.start % dsm::kPageSize == 0 && range.end % dsm::kPageSize == 0);
}

void check(const AddressSpace& space, const Change& change) {
  std::uint64_t mapped = 0, last = kWindowStart;
  const auto all = space.overlapping({0, ~std::uint64_t{0}});
  for (const Mapping& mapping : all) {
    check_range(mapping.range);
    DEMAND(mapping.range.start >= last);
    last = mapping.range.end;
    mapped += mapping.range.bytes();
    DEMAND(space.find(mapping.range.start) != nullptr);
    DEMAND(space.find(mapping.range.end - 1)->range == mapping.range);
  }
  DEMAND(all.size() == space.count() && mapped == space.mapped_bytes());
  DEMAND(space.accessible_bytes() <= kLimit);
  for (const Range& range : change.forbidden) check_range(range);
  for (const Range& range : change.discarded) check_range(range);
  for (const Mapping& mapping : change.written_back) check_range(mapping.range);
  for (const Mapping& mapping : change.filled) check_range(mapping.range);
  for (const Change::Move& move : change.moved) {
    check_range({move.from, move.from + move.bytes});
    check_range({move.to, move.to + move.bytes});
  }
}

// Addresses where something may be, pages of them, and wild ones.
std::uint64_t take_address(fuzz::Bytes& in) {
  const auto kind = in.take<std::uint8_t>();
  const std::uint64_t page = in.take<std::uint8_t>() * dsm::kPageSize;
  switch (kind % 8) {
    case 0: return 0;
    case 1: return kMmapBase + page;
    case 2: return kPieBase + page;
    case 3: return kWindowEnd - page;
    case 4: return kWindowStart + page;
    case 5: return kStackTop - page;
    case 6: return in.take<std::uint64_t>();
    default: return kMmapBase + in.take<std::uint32_t>();
  }
}
std::uint64_t take_length(fuzz::Bytes& in) {
  const auto kind = in.take<std::uint8_t>();
  if (kind % 8 == 7) return in.take<std::uint64_t>();
  return (in.take<std::uint8_t>() % 64) * dsm::kPageSize + (kind % 8 == 6 ? 1 : 0);
}
int take_flags(fuzz::Bytes& in) {
  constexpr int kCommon[] = {MAP_PRIVATE | MAP_ANONYMOUS,
                             MAP_SHARED | MAP_ANONYMOUS,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
                             MAP_PRIVATE,
                             MAP_SHARED,
                             MAP_SHARED | MAP_FIXED,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT};
  const auto kind = in.take<std::uint8_t>();
  return kind < 248 ? kCommon[kind % 8] : in.take<std::int32_t>();
}
int take_prot(fuzz::Bytes& in) {
  const auto prot = in.take<std::uint8_t>();
  return prot < 240 ? prot % 8 : prot << 20;
}

void call(AddressSpace& space, fuzz::Bytes& in) {
  const auto which = in.take<std::uint8_t>();
  const std::uint64_t address = take_address(in), bytes = take_length(in);
  Change change;
  switch (which % 6) {
    case 0:
    case 1: {
      const int prot = take_prot(in), flags = take_flags(in);
      change = space.mmap(address, bytes, prot, flags, which / 6 % 4,
                          in.take<std::uint16_t>() << 12, "/file");
      if (change.result > 0)
        DEMAND(space.find(static_cast<std::uint64_t>(change.result)) != nullptr);
      break;
    }
    case 2:
      change = space.munmap(address, bytes);
      if (change.result == 0 && in_window(address)) DEMAND(space.find(address) == nullptr);
      break;
    case 3: change = space.mprotect(address, bytes, take_prot(in)); break;
    case 4: {
      const std::uint64_t more = take_length(in), to = take_address(in);
      change = space.mremap(address, bytes, more, in.take<std::uint8_t>(), to);
      break;
    }
    default: change = space.brk(address); break;
  }
  check(space, change);
  // As msync(2) asks at the home.
  if (address % dsm::kPageSize != 0) return;
  const std::uint64_t whole = (bytes + dsm::kPageSize - 1) & ~(dsm::kPageSize - 1);
  for (const Mapping& part : space.writable_shared({address, address + whole})) {
    check_range(part.range);
    DEMAND(part.shared && part.backing >= 0);
  }
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace xenspan::hypervisor::usermode;
  xenspan::fuzz::Bytes in(data, size);
  AddressSpace space(kLimit);
  space.set_brk_start(kPieBase + (1 << 20));
  for (int calls = 0; in.left() > 0 && calls < 64; ++calls) call(space, in);
  DEMAND(!space.maps().empty() || space.count() == 0);
  return 0;
}
