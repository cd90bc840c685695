// The layout against the kernel: the same random calls to both, then the same results, rights and
// contents.
//
// The calls go to an area of this process that lies in the guest's window, so the addresses are the
// same. What a Change asks for is carried out on a copy of the area; the copy must equal the
// kernel's memory after each call.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <set>

#include "dom0-daemon/hypervisor/usermode/address_space.h"
#include "dom0-daemon/hypervisor/usermode/window.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint64_t kPage = dsm::kPageSize;
constexpr unsigned kPages = 24;
constexpr std::uint64_t kArea = kMmapBase + (std::uint64_t{1} << 32);
constexpr std::uint64_t kAreaEnd = kArea + kPages * kPage;
constexpr int kUnmapped = -1;

class KernelTest : public testing::TestWithParam<unsigned> {
 protected:
  void TearDown() override { ::munmap(reinterpret_cast<void*>(kArea), kPages * kPage); }

  // Rights of each page as /proc/self/maps has them.
  static std::array<int, kPages> kernel_rights() {
    std::array<int, kPages> rights;
    rights.fill(kUnmapped);
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
      unsigned long start = 0, end = 0;
      char flags[5] = {};
      std::sscanf(line.c_str(), "%lx-%lx %4s", &start, &end, flags);
      for (unsigned page = 0; page < kPages; ++page) {
        const std::uint64_t at = kArea + page * kPage;
        if (at < start || at >= end) continue;
        rights[page] = (flags[0] == 'r' ? PROT_READ : 0) | (flags[1] == 'w' ? PROT_WRITE : 0) |
                       (flags[2] == 'x' ? PROT_EXEC : 0);
      }
    }
    return rights;
  }

  static std::uint64_t kernel_mapping_end(std::uint64_t address) {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
      unsigned long start = 0, end = 0;
      std::sscanf(line.c_str(), "%lx-%lx", &start, &end);
      if (address >= start && address < end) return end;
    }
    return address;
  }

  std::array<int, kPages> layout_rights() const {
    std::array<int, kPages> rights;
    for (unsigned page = 0; page < kPages; ++page) {
      const Mapping* mapping = space_.find(kArea + page * kPage);
      rights[page] = mapping == nullptr ? kUnmapped : mapping->prot;
    }
    return rights;
  }

  std::uint8_t* copy_at(std::uint64_t address) { return copy_.data() + (address - kArea); }

  void carry_out(const Change& change) {
    for (const Change::Move& move : change.moved) {
      ASSERT_GE(move.from, kArea);
      ASSERT_LE(move.to + move.bytes, kAreaEnd);
      std::memmove(copy_at(move.to), copy_at(move.from), move.bytes);
    }
    for (const Range& range : change.discarded) {
      ASSERT_GE(range.start, kArea);
      ASSERT_LE(range.end, kAreaEnd);
      std::memset(copy_at(range.start), 0, range.bytes());
    }
  }

  // Every page whose rights became less, or whose contents are others now, must be forbidden, and
  // no other one.
  void check_forbidden(const Change& change, const std::array<int, kPages>& before,
                       const std::set<std::uint64_t>& replaced) {
    const std::array<int, kPages> after = layout_rights();
    for (unsigned page = 0; page < kPages; ++page) {
      const std::uint64_t at = kArea + page * kPage;
      const int old_rights = before[page] == kUnmapped ? 0 : before[page];
      const int new_rights = after[page] == kUnmapped ? 0 : after[page];
      const bool expected =
          old_rights != 0 && ((old_rights & ~new_rights) != 0 || replaced.contains(at));
      bool forbidden = false;
      for (const Range& range : change.forbidden) {
        forbidden = forbidden || (at >= range.start && at < range.end);
      }
      ASSERT_EQ(forbidden, expected) << "page " << page;
    }
  }

  AddressSpace space_{std::uint64_t{1} << 40};
  std::vector<std::uint8_t> copy_ = std::vector<std::uint8_t>(kPages * kPage);
};

std::int64_t as_result(void* address) {
  return address == MAP_FAILED ? -errno : reinterpret_cast<std::int64_t>(address);
}

TEST_P(KernelTest, SameCallsSameOutcome) {
  std::mt19937 random(GetParam());
  const auto pick = [&random](unsigned below) { return static_cast<unsigned>(random() % below); };
  // No write-only and no execute-only pages: a read of them would crash this test.
  constexpr int kRights[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE};
  for (int step = 0; step < 3000; ++step) {
    const std::array<int, kPages> before = layout_rights();
    const unsigned first = pick(kPages), length = 1 + pick(std::min(8u, kPages - first));
    const std::uint64_t at = kArea + first * kPage, bytes = length * kPage;
    auto* pointer = reinterpret_cast<void*>(at);
    const int prot = kRights[pick(4)];
    std::set<std::uint64_t> replaced;
    const auto replace = [&replaced](std::uint64_t start, std::uint64_t size) {
      for (std::uint64_t page = 0; page < size; page += kPage) replaced.insert(start + page);
    };
    Change change;
    std::int64_t kernel = 0;
    std::string call;
    switch (pick(6)) {
      case 0: {
        const int flags =
            MAP_PRIVATE | MAP_ANONYMOUS | (pick(3) == 0 ? MAP_FIXED_NOREPLACE : MAP_FIXED);
        call = fmt::format("mmap({}, {}, {}, {:#x})", first, length, prot, flags);
        kernel = as_result(::mmap(pointer, bytes, prot, flags, -1, 0));
        change = space_.mmap(at, bytes, prot, flags, -1, 0, "");
        if (change.result > 0) replace(at, bytes);
        break;
      }
      case 1:
        call = fmt::format("munmap({}, {})", first, length);
        kernel = ::munmap(pointer, bytes) == 0 ? 0 : -errno;
        change = space_.munmap(at, bytes);
        break;
      case 2:
      case 3:
        call = fmt::format("mprotect({}, {}, {})", first, length, prot);
        kernel = ::mprotect(pointer, bytes, prot) == 0 ? 0 : -errno;
        change = space_.mprotect(at, bytes, prot);
        break;
      default: {
        const unsigned target = pick(kPages), new_length = 1 + pick(std::min(8u, kPages - target));
        int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
        if (pick(4) == 0 && new_length == length) flags |= 4;  // MREMAP_DONTUNMAP
        if (pick(3) == 0) flags = 0;
        // Growing in place must not leave the area.
        if (flags == 0 && first + new_length > kPages) continue;
        const std::uint64_t to = kArea + target * kPage;
        call = fmt::format("mremap({}, {}, {}, {}, {})", first, length, new_length, flags, target);
        // The kernel does not join all neighbours that look equal (pages that were moved keep their
        // old index), and refuses to move across its seams; there the layout is more generous.
        // Seams of its own are those of the kernel.
        const Mapping* mapping = space_.find(at);
        if (mapping != nullptr && kernel_mapping_end(at) < at + bytes) continue;
        kernel = as_result(::mremap(pointer, bytes, new_length * kPage, flags, to));
        change = space_.mremap(at, bytes, new_length * kPage, flags, to);
        if (change.result > 0 && flags != 0) {
          replace(to, new_length * kPage);
          replace(at, bytes);
        }
      }
    }
    const std::string where = fmt::format("seed {} step {}: {}", GetParam(), step, call);
    ASSERT_EQ(change.result, kernel) << where;
    ASSERT_EQ(layout_rights(), kernel_rights()) << where;
    ASSERT_NO_FATAL_FAILURE(carry_out(change)) << where;
    ASSERT_NO_FATAL_FAILURE(check_forbidden(change, before, replaced)) << where;

    const std::array<int, kPages> rights = layout_rights();
    std::uint64_t writable = 0;
    for (unsigned page = 0; page < kPages; ++page) {
      auto* memory = reinterpret_cast<std::uint8_t*>(kArea + page * kPage);
      if (rights[page] > 0) {
        ASSERT_EQ(std::memcmp(memory, copy_.data() + page * kPage, kPage), 0)
            << where << ": contents of page " << page;
      }
      if (rights[page] == (PROT_READ | PROT_WRITE)) {
        writable += kPage;
        if (pick(4) == 0) {
          memory[step % kPage] = copy_[page * kPage + step % kPage] =
              static_cast<std::uint8_t>(step | 1);
        }
      }
    }
    ASSERT_EQ(space_.accessible_bytes(), writable) << where;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, KernelTest, testing::Range(1u, 9u));

}  // namespace
}  // namespace xenspan::hypervisor::usermode
