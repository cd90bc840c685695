// The layout by itself. Its agreement with the kernel is tested in address_space_kernel_test.cc.
#include "dom0-daemon/hypervisor/usermode/address_space.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>

#include "dom0-daemon/hypervisor/usermode/window.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint64_t kPage = dsm::kPageSize;
constexpr std::uint64_t kMemory = std::uint64_t{1} << 30;
constexpr int kRw = PROT_READ | PROT_WRITE;
constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS;
using Ranges = std::vector<Range>;

class AddressSpaceTest : public testing::Test {
 protected:
  std::uint64_t map(std::uint64_t pages, int prot = kRw, int flags = kPrivate,
                    std::uint64_t at = 0) {
    const Change change = space_.mmap(at, pages * kPage, prot, flags, -1, 0, "");
    EXPECT_GE(change.result, 0);
    return static_cast<std::uint64_t>(change.result);
  }
  std::uint64_t map_file(std::uint64_t pages, int prot, int type, std::uint64_t offset = 0) {
    const Change change = space_.mmap(0, pages * kPage, prot, type, 7, offset, "/data");
    EXPECT_EQ(change.filled.size(), 1u);
    return static_cast<std::uint64_t>(change.result);
  }
  AddressSpace space_{kMemory};
};

TEST_F(AddressSpaceTest, PlacesFromTheMmapBaseUpwards) {
  EXPECT_EQ(map(2), kMmapBase);
  EXPECT_EQ(map(1), kMmapBase + 2 * kPage);
  EXPECT_EQ(space_.count(), 1u) << "equal neighbours are one mapping";
}

TEST_F(AddressSpaceTest, ReusesFreedRangesBeforeUntouchedOnes) {
  const std::uint64_t first = map(4);
  map(4, PROT_READ);
  const std::uint64_t third = map(2);
  map(4, PROT_READ);
  space_.munmap(first, 4 * kPage);
  space_.munmap(third, 2 * kPage);
  EXPECT_EQ(map(2), third) << "the smallest that fits";
  EXPECT_EQ(map(3), first);
  EXPECT_EQ(map(1), first + 3 * kPage);
}

TEST_F(AddressSpaceTest, HintIsTakenWhenFreeAndElseIgnored) {
  EXPECT_EQ(map(1, kRw, kPrivate, 0x700000123), 0x700000000u) << "rounded down";
  EXPECT_EQ(map(1, kRw, kPrivate, 0x700000000), kMmapBase);
  EXPECT_EQ(map(1, kRw, kPrivate, 0x7f0012345000), kMmapBase + kPage) << "outside the window";
}

TEST_F(AddressSpaceTest, LowMemoryForMap32Bit) {
  const std::uint64_t at = map(16, kRw, kPrivate | MAP_32BIT);
  EXPECT_GE(at, kWindowStart);
  EXPECT_LE(at + 16 * kPage, 0x80000000u);
  EXPECT_EQ(map(16, kRw, kPrivate | MAP_32BIT), at + 16 * kPage);
}

TEST_F(AddressSpaceTest, RefusesWhatLinuxRefuses) {
  const auto result = [this](std::uint64_t at, std::uint64_t bytes, int flags, int backing = -1,
                             std::uint64_t offset = 0) {
    return space_.mmap(at, bytes, kRw, flags, backing, offset, "").result;
  };
  EXPECT_EQ(result(0, 0, kPrivate), -EINVAL);
  EXPECT_EQ(result(0, kPage, MAP_ANONYMOUS), -EINVAL) << "neither shared nor private";
  EXPECT_EQ(result(0, kPage, MAP_PRIVATE, 1, 17), -EINVAL);
  EXPECT_EQ(result(0, kPage, MAP_PRIVATE), -EBADF);
  EXPECT_EQ(result(0, ~std::uint64_t{0}, kPrivate), -ENOMEM);
  EXPECT_EQ(result(0, kPage, MAP_PRIVATE, 1, ~std::uint64_t{0} << 12), -EOVERFLOW);
  EXPECT_EQ(result(0x1234567, kPage, kPrivate | MAP_FIXED), -EINVAL);
  EXPECT_EQ(result(0, kPage, kPrivate | MAP_FIXED), -EPERM);
  EXPECT_EQ(result(kWindowEnd - kPage, 2 * kPage, kPrivate | MAP_FIXED), -ENOMEM);
  EXPECT_EQ(result(0, kPage, kPrivate | MAP_HUGETLB), -ENOMEM);
  EXPECT_EQ(result(0, kPage, MAP_SHARED_VALIDATE | MAP_SYNC, 1), -EOPNOTSUPP);
  EXPECT_EQ(space_.count(), 0u);
}

TEST_F(AddressSpaceTest, ToleratesFlagsWithoutMeaningHere) {
  for (const int flag : {MAP_GROWSDOWN, MAP_STACK, MAP_NORESERVE, MAP_POPULATE, MAP_LOCKED,
                         MAP_NONBLOCK, MAP_DENYWRITE}) {
    EXPECT_GE(space_.mmap(0, kPage, kRw, kPrivate | flag, -1, 0, "").result, 0) << flag;
  }
}

TEST_F(AddressSpaceTest, FixedReplacesAndSaysWhatGoes) {
  const std::uint64_t at = map(4);
  const Change change =
      space_.mmap(at + kPage, 2 * kPage, PROT_READ, kPrivate | MAP_FIXED, -1, 0, "");
  EXPECT_EQ(change.result, static_cast<std::int64_t>(at + kPage));
  EXPECT_EQ(change.forbidden, (Ranges{{at + kPage, at + 3 * kPage}}));
  EXPECT_EQ(change.discarded, (Ranges{{at + kPage, at + 3 * kPage}}));
  EXPECT_EQ(space_.count(), 3u);
  EXPECT_EQ(space_.mmap(at, kPage, kRw, kPrivate | MAP_FIXED_NOREPLACE, -1, 0, "").result, -EEXIST);
  const Change beside =
      space_.mmap(at + 4 * kPage, kPage, kRw, kPrivate | MAP_FIXED_NOREPLACE, -1, 0, "");
  EXPECT_EQ(beside.result, static_cast<std::int64_t>(at + 4 * kPage));
  EXPECT_TRUE(beside.forbidden.empty());
  EXPECT_TRUE(beside.discarded.empty());
}

TEST_F(AddressSpaceTest, ReservationsCostNothing) {
  const std::uint64_t at = map(64 * kMemory / kPage, PROT_NONE, kPrivate | MAP_NORESERVE);
  EXPECT_EQ(space_.accessible_bytes(), 0u);
  EXPECT_EQ(space_.mprotect(at, 2 * kPage, kRw).result, 0);
  EXPECT_EQ(space_.accessible_bytes(), 2 * kPage);
  const Change change = space_.munmap(at, 64 * kMemory);
  EXPECT_EQ(change.forbidden, (Ranges{{at, at + 2 * kPage}}));
  EXPECT_EQ(change.discarded, (Ranges{{at, at + 2 * kPage}})) << "the rest never had contents";
  EXPECT_EQ(space_.accessible_bytes(), 0u);
}

TEST_F(AddressSpaceTest, MemoryLimitHoldsForEveryWayToGrow) {
  const std::uint64_t at = map(kMemory / kPage);
  EXPECT_EQ(space_.mmap(0, kPage, kRw, kPrivate, -1, 0, "").result, -ENOMEM);
  EXPECT_EQ(space_.mmap(0, kPage, kRw, MAP_SHARED | MAP_ANONYMOUS, -1, 0, "").result, -ENOMEM);
  EXPECT_EQ(space_.mmap(at, kPage, kRw, kPrivate | MAP_FIXED, -1, 0, "").result,
            static_cast<std::int64_t>(at))
      << "what it replaces counts";
  const std::uint64_t reserved = map(1, PROT_NONE);
  EXPECT_EQ(space_.mprotect(reserved, kPage, kRw).result, -ENOMEM);
  EXPECT_EQ(space_.mprotect(reserved, kPage, PROT_READ).result, 0);
  EXPECT_EQ(space_.mremap(at, kPage, 2 * kPage, MREMAP_MAYMOVE, 0).result, -ENOMEM);
  space_.set_brk_start(0x1000000);
  EXPECT_EQ(space_.brk(0x1000000 + kPage).result, 0x1000000);
  space_.munmap(at, kPage);
  EXPECT_EQ(space_.brk(0x1000000 + kPage).result, static_cast<std::int64_t>(0x1000000 + kPage));
}

TEST_F(AddressSpaceTest, MprotectThatOnlyAddsRightsForbidsNothing) {
  const std::uint64_t at = map(4, PROT_READ);
  EXPECT_TRUE(space_.mprotect(at, 4 * kPage, kRw).forbidden.empty());
  EXPECT_TRUE(space_.mprotect(at, 4 * kPage, kRw).forbidden.empty());
  const Change less = space_.mprotect(at + kPage, kPage, PROT_READ);
  EXPECT_EQ(less.forbidden, (Ranges{{at + kPage, at + 2 * kPage}}));
  EXPECT_TRUE(less.discarded.empty());
  EXPECT_EQ(space_.count(), 3u);
  EXPECT_TRUE(space_.mprotect(at + kPage, kPage, kRw).forbidden.empty());
  EXPECT_EQ(space_.count(), 1u);
}

TEST_F(AddressSpaceTest, MprotectOverAHoleChangesWhatIsBeforeIt) {
  const std::uint64_t at = map(4);
  space_.munmap(at + 2 * kPage, kPage);
  EXPECT_EQ(space_.mprotect(at, 4 * kPage, PROT_READ).result, -ENOMEM);
  EXPECT_EQ(space_.find(at)->prot, PROT_READ);
  EXPECT_EQ(space_.find(at + 3 * kPage)->prot, kRw);
  EXPECT_EQ(space_.mprotect(at + 1, kPage, kRw).result, -EINVAL);
  EXPECT_EQ(space_.mprotect(at, 0, kRw).result, 0);
  EXPECT_EQ(space_.mprotect(at, kPage, 0x40).result, -EINVAL);
  EXPECT_EQ(space_.mprotect(at, kPage, kRw | PROT_GROWSDOWN).result, -EINVAL);
}

TEST_F(AddressSpaceTest, StackMadeExecutableAsTheDynamicLinkerDoes) {
  space_.mmap(kStackTop - kStackBytes, kStackBytes, kRw, kPrivate | MAP_FIXED, -1, 0, "[stack]");
  EXPECT_EQ(space_.mprotect(kStackTop - kPage, kPage, kRw | PROT_EXEC | PROT_GROWSDOWN).result, 0);
  EXPECT_EQ(space_.find(kStackTop - kStackBytes)->prot, kRw | PROT_EXEC);
  EXPECT_EQ(space_.count(), 1u);
}

TEST_F(AddressSpaceTest, MunmapChecksAndIgnoresHoles) {
  EXPECT_EQ(space_.munmap(kMmapBase + 1, kPage).result, -EINVAL);
  EXPECT_EQ(space_.munmap(kMmapBase, 0).result, -EINVAL);
  EXPECT_EQ(space_.munmap(std::uint64_t{1} << 60, kPage).result, -EINVAL);
  EXPECT_EQ(space_.munmap(kMmapBase, kPage).result, 0);
  EXPECT_EQ(space_.munmap(0x7f0000000000, kPage).result, 0);
}

TEST_F(AddressSpaceTest, SharedFileIsWrittenBackOnlyWhereItWasWritable) {
  const std::uint64_t at = map_file(4, PROT_READ, MAP_SHARED, 8 * kPage);
  EXPECT_EQ(space_.accessible_bytes(), 0u);
  EXPECT_TRUE(space_.writable_shared({at, at + 4 * kPage}).empty());
  space_.mprotect(at + kPage, kPage, kRw);
  space_.mprotect(at + kPage, kPage, PROT_READ);
  const auto parts = space_.writable_shared({0, kWindowEnd});
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].range, (Range{at + kPage, at + 2 * kPage}));
  EXPECT_EQ(parts[0].offset, 9 * kPage);
  const Change change = space_.munmap(at, 4 * kPage);
  ASSERT_EQ(change.written_back.size(), 1u);
  EXPECT_EQ(change.written_back[0].range, (Range{at + kPage, at + 2 * kPage}));
  EXPECT_EQ(change.written_back[0].offset, 9 * kPage);
  EXPECT_EQ(change.written_back[0].backing, 7);
  EXPECT_EQ(change.discarded, (Ranges{{at, at + 4 * kPage}}));
}

TEST_F(AddressSpaceTest, PrivateFileIsNeverWrittenBack) {
  const std::uint64_t at = map_file(2, kRw, MAP_PRIVATE);
  EXPECT_EQ(space_.accessible_bytes(), 2 * kPage);
  EXPECT_TRUE(space_.munmap(at, 2 * kPage).written_back.empty());
}

TEST_F(AddressSpaceTest, FileNeighboursMergeOnlyWhenOffsetsContinue) {
  const std::uint64_t at = map_file(2, PROT_READ, MAP_PRIVATE, 0);
  space_.mmap(at + 2 * kPage, kPage, PROT_READ, MAP_PRIVATE | MAP_FIXED, 7, 2 * kPage, "/data");
  EXPECT_EQ(space_.count(), 1u);
  space_.mmap(at + 3 * kPage, kPage, PROT_READ, MAP_PRIVATE | MAP_FIXED, 7, 9 * kPage, "/data");
  EXPECT_EQ(space_.count(), 2u);
  space_.munmap(at + kPage, kPage);
  EXPECT_EQ(space_.find(at + 2 * kPage)->offset, 2 * kPage);
}

TEST_F(AddressSpaceTest, SharedAnonymousIsMarked) {
  const std::uint64_t at = map(2, kRw, MAP_SHARED | MAP_ANONYMOUS);
  const Mapping* mapping = space_.find(at);
  EXPECT_EQ(mapping->name, kSharedAnonymous);
  EXPECT_FALSE(mapping->shared);
  EXPECT_NE(space_.maps().find("rw-s"), std::string::npos);
  EXPECT_TRUE(space_.munmap(at, 2 * kPage).written_back.empty());
}

TEST_F(AddressSpaceTest, MremapGrowsInPlaceWhenThereIsRoom) {
  const std::uint64_t at = map(2);
  const Change grown = space_.mremap(at, 2 * kPage, 5 * kPage, 0, 0);
  EXPECT_EQ(grown.result, static_cast<std::int64_t>(at));
  EXPECT_TRUE(grown.moved.empty());
  EXPECT_TRUE(grown.forbidden.empty());
  EXPECT_EQ(space_.find(at)->range, (Range{at, at + 5 * kPage}));
  const Change shrunk = space_.mremap(at, 5 * kPage, kPage, 0, 0);
  EXPECT_EQ(shrunk.discarded, (Ranges{{at + kPage, at + 5 * kPage}}));
  map(1, PROT_READ, kPrivate | MAP_FIXED, at + kPage);
  EXPECT_EQ(space_.mremap(at, kPage, 2 * kPage, 0, 0).result, -ENOMEM);
}

TEST_F(AddressSpaceTest, MremapMovesContents) {
  const std::uint64_t at = map(2);
  map(1, PROT_READ);
  const Change change = space_.mremap(at, 2 * kPage, 4 * kPage, MREMAP_MAYMOVE, 0);
  const auto to = static_cast<std::uint64_t>(change.result);
  EXPECT_EQ(to, at + 3 * kPage);
  EXPECT_EQ(change.moved, (std::vector<Change::Move>{{at, to, 2 * kPage}}));
  EXPECT_EQ(change.forbidden, (Ranges{{at, at + 2 * kPage}}));
  EXPECT_EQ(change.discarded, (Ranges{{at, at + 2 * kPage}}));
  EXPECT_EQ(space_.find(at), nullptr);
  EXPECT_EQ(space_.accessible_bytes(), 4 * kPage);
}

TEST_F(AddressSpaceTest, MremapFixedDoesNotDiscardWhatItMovedIn) {
  const std::uint64_t at = map(2);
  const std::uint64_t to = map(4, kRw, kPrivate, at + 64 * kPage);
  const Change change = space_.mremap(at, 2 * kPage, 3 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, to);
  EXPECT_EQ(change.result, static_cast<std::int64_t>(to));
  EXPECT_EQ(change.discarded, (Ranges{{at, at + 2 * kPage}, {to + 2 * kPage, to + 3 * kPage}}));
  EXPECT_EQ(change.moved, (std::vector<Change::Move>{{at, to, 2 * kPage}}));
  EXPECT_EQ(space_.count(), 1u) << "what was there behind it and the moved part agree";
}

TEST_F(AddressSpaceTest, MremapDontUnmapLeavesZeroes) {
  const std::uint64_t at = map(2);
  const Change change =
      space_.mremap(at, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
  EXPECT_EQ(change.discarded, (Ranges{{at, at + 2 * kPage}}));
  EXPECT_EQ(change.moved.size(), 1u);
  EXPECT_NE(space_.find(at), nullptr);
  EXPECT_EQ(space_.accessible_bytes(), 4 * kPage);
}

TEST_F(AddressSpaceTest, MremapOfASharedFileKeepsItsWritesAndFillsTheRest) {
  const std::uint64_t at = map_file(2, kRw, MAP_SHARED);
  map(1, PROT_READ, kPrivate | MAP_FIXED, at + 2 * kPage);
  const Change change = space_.mremap(at, 2 * kPage, 3 * kPage, MREMAP_MAYMOVE, 0);
  const auto to = static_cast<std::uint64_t>(change.result);
  EXPECT_TRUE(change.written_back.empty());
  ASSERT_EQ(change.filled.size(), 1u);
  EXPECT_EQ(change.filled[0].range, (Range{to + 2 * kPage, to + 3 * kPage}));
  EXPECT_EQ(change.filled[0].offset, 2 * kPage);
  EXPECT_EQ(space_.munmap(to, 3 * kPage).written_back.size(), 1u);
}

TEST_F(AddressSpaceTest, MremapRefusesWhatLinuxRefuses) {
  const std::uint64_t at = map(4);
  const auto result = [this](std::uint64_t from, std::uint64_t old_bytes, std::uint64_t new_bytes,
                             int flags, std::uint64_t to = 0) {
    return space_.mremap(from, old_bytes, new_bytes, flags, to).result;
  };
  EXPECT_EQ(result(at, kPage, 0, 0), -EINVAL);
  EXPECT_EQ(result(at, 0, kPage, MREMAP_MAYMOVE), -EINVAL);
  EXPECT_EQ(result(at + 1, kPage, kPage, 0), -EINVAL);
  EXPECT_EQ(result(at, kPage, kPage, 64), -EINVAL);
  EXPECT_EQ(result(at, kPage, kPage, MREMAP_FIXED, kMmapBase * 2), -EINVAL);
  EXPECT_EQ(result(at, kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP), -EINVAL);
  EXPECT_EQ(result(at, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, at + kPage), -EINVAL);
  EXPECT_EQ(result(at + 64 * kPage, kPage, 2 * kPage, MREMAP_MAYMOVE), -EFAULT);
  EXPECT_EQ(result(at, 5 * kPage, 6 * kPage, MREMAP_MAYMOVE), -EFAULT);
}

TEST_F(AddressSpaceTest, BrkGrowsToTheNextMappingAndShrinks) {
  constexpr std::uint64_t kStart = 0x1000000;
  space_.set_brk_start(kStart);
  EXPECT_EQ(space_.brk(0).result, static_cast<std::int64_t>(kStart));
  EXPECT_EQ(space_.brk(kStart + 100).result, static_cast<std::int64_t>(kStart + 100));
  EXPECT_EQ(space_.find(kStart)->name, "[heap]");
  map(1, kRw, kPrivate | MAP_FIXED, kStart + 8 * kPage);
  EXPECT_EQ(space_.brk(kStart + 9 * kPage).result, static_cast<std::int64_t>(kStart + 100));
  EXPECT_EQ(space_.brk(kStart + 8 * kPage).result, static_cast<std::int64_t>(kStart + 8 * kPage));
  const Change change = space_.brk(kStart + kPage + 1);
  EXPECT_EQ(change.discarded, (Ranges{{kStart + 2 * kPage, kStart + 8 * kPage}}));
  EXPECT_EQ(change.forbidden, change.discarded);
  EXPECT_EQ(space_.brk(kStart - 1).result, static_cast<std::int64_t>(kStart + kPage + 1));
  EXPECT_EQ(space_.brk_now(), kStart + kPage + 1);
}

TEST_F(AddressSpaceTest, OverlappingGivesWholeMappingsInOrder) {
  const std::uint64_t at = map(2);
  map(2, PROT_READ);
  const auto list = space_.overlapping({at + kPage, at + 3 * kPage});
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].range.start, at);
  EXPECT_EQ(list[1].range.end, at + 4 * kPage);
  EXPECT_TRUE(space_.overlapping({at + 4 * kPage, at + 9 * kPage}).empty());
}

TEST_F(AddressSpaceTest, MapsReadAsTheKernelPrintsThem) {
  space_.mmap(0x400000, kPage, PROT_READ | PROT_EXEC, kPrivate | MAP_FIXED, -1, 0x2000, "/no/such");
  map(1);
  EXPECT_EQ(space_.maps(),
            "00400000-00401000 r-xp 00002000 00:00 0                                  /no/such\n"
            "8000000000-8000001000 rw-p 00000000 00:00 0 \n");
}

TEST_F(AddressSpaceTest, TheStackStaysOutOfTheMmapArea) {
  const std::uint64_t whole = kWindowEnd - kMmapBase;
  const Change change = space_.mmap(0, whole - (16 << 20), PROT_NONE, kPrivate, -1, 0, "");
  ASSERT_GE(change.result, 0);
  EXPECT_LE(static_cast<std::uint64_t>(change.result) + whole - (16 << 20),
            kStackTop - kStackBytes);
  EXPECT_LT(map(4096), kMmapBase) << "the second area takes over";
  EXPECT_EQ(space_.mmap(0, whole, PROT_NONE, kPrivate, -1, 0, "").result, -ENOMEM);
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
