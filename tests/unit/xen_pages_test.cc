// A slice's pages under Xen, with a stand-in for Xen: rights, frames in a bounded number of
// mappings, memory that follows use.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>

#include "dom0-daemon/hypervisor/xen/page_access.h"
#include "tests/unit/fake_guest_pages.h"

namespace xenspan::hypervisor::xen {
namespace {

using dsm::Gfn;
using dsm::Right;

struct Bed {
  explicit Bed(Gfn count = 1024, std::uint32_t most_mapped = 32) : pages(count) {
    pages.start();
    auto made = PageAccess::create(pages, {count, 2, most_mapped, 32});
    access = std::move(*made);
  }
  std::uint64_t* words(Gfn gfn) { return reinterpret_cast<std::uint64_t*>(access->frame(gfn)); }
  test::FakeGuestPages pages;
  std::unique_ptr<PageAccess> access;
};

bool all_zero(const std::uint64_t* words) {
  return std::all_of(words, words + 512, [](std::uint64_t word) { return word == 0; });
}

TEST(PageAccess, RightsAreXens) {
  Bed bed;
  EXPECT_EQ(bed.access->grant(5, 1, Right::kExclusive), 0);
  EXPECT_EQ(bed.pages.access(5), Access::kAll);
  EXPECT_EQ(bed.access->protect(5), 0);
  EXPECT_EQ(bed.pages.access(5), Access::kReadExecute);
  EXPECT_EQ(bed.access->withdraw(5), 0);
  EXPECT_EQ(bed.pages.access(5), Access::kNone);
  EXPECT_EQ(bed.access->grant(5, 3, Right::kShared), 0);
  EXPECT_EQ(bed.pages.access(7), Access::kReadExecute);
  EXPECT_EQ(bed.access->right(7), Right::kShared);
}

// A run with entries on demand in it: they have no right to lose, and stay what they are.
TEST(PageAccess, RunIsWithdrawnAroundEntries) {
  Bed bed;
  for (const Gfn gfn : {10u, 11u, 14u}) EXPECT_EQ(bed.access->grant(gfn, 1, Right::kExclusive), 0);
  EXPECT_EQ(bed.access->withdraw_run(8, 10), 0);
  for (Gfn gfn = 8; gfn < 18; ++gfn) EXPECT_EQ(bed.access->right(gfn), Right::kInvalid);
  EXPECT_FALSE(bed.pages.populated(12));
  EXPECT_TRUE(bed.pages.populated(14));
  EXPECT_EQ(bed.pages.access(14), Access::kNone);
}

TEST(PageAccess, FrameIsTheGuestsPage) {
  Bed bed;
  EXPECT_TRUE(all_zero(bed.words(3)));
  bed.words(3)[7] = 99;
  EXPECT_EQ(bed.access->grant(3, 1, Right::kShared), 0);
  std::uint64_t seen = 0;
  EXPECT_TRUE(bed.pages.touch(3, Access::kReadExecute, [&](std::byte* page) {
    seen = reinterpret_cast<std::uint64_t*>(page)[7];
  }));
  EXPECT_EQ(seen, 99u);
  EXPECT_EQ(bed.access->frame(4), bed.access->frame(3) + dsm::kPageSize);
  EXPECT_EQ(bed.access->frame(1024), nullptr);
}

TEST(PageAccess, MappingsAreBoundedAndContentsKept) {
  Bed bed(1024, 32);
  for (Gfn gfn = 0; gfn < 600; ++gfn) {
    bed.words(gfn)[0] = gfn + 1;
    ASSERT_EQ(bed.access->grant(gfn, 1, Right::kExclusive), 0);
    ASSERT_LE(bed.access->mapped(), 32u);
  }
  for (Gfn gfn = 0; gfn < 600; ++gfn) ASSERT_EQ(bed.words(gfn)[0], gfn + 1);
  EXPECT_GE(bed.pages.maps, 1100u) << "nothing was ever unmapped";
  EXPECT_EQ(bed.pages.crashes, 0u);
}

// What is being filled stays mapped, however many others are asked for.
TEST(PageAccess, PagesBeingFilledStayMapped) {
  Bed bed(1024, 8);
  std::uint64_t* filling[4];
  for (Gfn gfn = 0; gfn < 4; ++gfn) filling[gfn] = bed.words(gfn);
  for (Gfn gfn = 100; gfn < 200; ++gfn) {
    ASSERT_NE(bed.words(gfn), nullptr);
    ASSERT_EQ(bed.access->grant(gfn, 1, Right::kShared), 0);
  }
  for (Gfn gfn = 0; gfn < 4; ++gfn) filling[gfn][511] = gfn;  // would be a crash
  // And when all places are taken so, it is an error and no harm.
  for (Gfn gfn = 4; gfn < 8; ++gfn) bed.words(gfn);
  EXPECT_EQ(bed.access->frame(300), nullptr);
  EXPECT_EQ(bed.access->grant(0, 1, Right::kShared), 0);
  bed.words(1);  // this thread is done with page 0
  for (int i = 0; i < 3 && bed.access->frame(300) == nullptr; ++i) {
  }
  EXPECT_NE(bed.access->frame(300), nullptr);
}

TEST(PageAccess, DroppedPageIsZeroBeforeItIsGivenBack) {
  Bed bed;
  bed.words(9)[100] = 1;
  ASSERT_EQ(bed.access->grant(9, 1, Right::kExclusive), 0);
  ASSERT_EQ(bed.access->withdraw(9), 0);
  ASSERT_EQ(bed.access->drop_frame(9), 0);
  EXPECT_TRUE(bed.pages.populated(9)) << "one by one is not what was meant";
  EXPECT_TRUE(all_zero(bed.words(9)));
  ASSERT_EQ(bed.access->drop_frame(9), 0);
  ASSERT_EQ(bed.access->grant(9, 1, Right::kExclusive), 0);
  // In the list twice, and in use: it stays.
  ASSERT_EQ(bed.access->give_back_dropped(), 0);
  EXPECT_TRUE(bed.pages.populated(9));
  EXPECT_EQ(bed.pages.mistakes, 0u);
}

TEST(PageAccess, MemoryFollowsUse) {
  Bed bed(8192, 64);
  std::uint64_t most = 0;
  for (int pass = 0; pass < 5; ++pass) {
    for (Gfn gfn = 0; gfn < 500; ++gfn) {
      const Gfn page = (gfn * 37 + static_cast<Gfn>(pass) * 500) % 8192;
      ASSERT_TRUE(all_zero(bed.words(page)));
      bed.words(page)[1] = 1;
      ASSERT_EQ(bed.access->grant(page, 1, Right::kExclusive), 0);
      ASSERT_EQ(bed.access->withdraw(page), 0);
      ASSERT_EQ(bed.access->drop_frame(page), 0);
    }
    most = std::max(most, bed.pages.facts().pages);
  }
  ASSERT_EQ(bed.access->give_back_dropped(), 0);
  EXPECT_EQ(bed.pages.facts().entries, 8192u);
  // 2500 pages went through; never more than a batch and a stock of them had memory.
  EXPECT_LE(most, 800u);
  EXPECT_EQ(bed.pages.mistakes, 0u);
  EXPECT_EQ(bed.pages.crashes, 0u);
}

TEST(PageAccess, NoMemoryIsAnError) {
  Bed bed;
  bed.pages.fail_stock = true;
  EXPECT_EQ(bed.access->grant(1, 1, Right::kExclusive), ENOMEM);
  EXPECT_EQ(bed.access->frame(1), nullptr);
  bed.pages.fail_stock = false;
  EXPECT_EQ(bed.access->grant(1, 1, Right::kExclusive), 0);
  bed.pages.fail_map = true;
  EXPECT_EQ(bed.access->frame(2), nullptr);
  bed.pages.fail_map = false;
  EXPECT_NE(bed.access->frame(2), nullptr);
}

TEST(PageAccess, WhatTheGuestHadIsAdopted) {
  Bed bed;
  std::memset(bed.pages.put_before(40), 7, dsm::kPageSize);
  bed.access->adopt(40, 1);
  EXPECT_EQ(bed.access->right(40), Right::kExclusive);
  EXPECT_EQ(std::to_integer<int>(bed.access->frame(40)[4095]), 7);
  EXPECT_EQ(bed.access->protect(40), 0);
  EXPECT_EQ(bed.pages.access(40), Access::kReadExecute);
}

// Every thread fills and drops pages of its own and reads pages of all, with far fewer mappings
// than pages.
TEST(PageAccess, ManyThreads) {
  constexpr unsigned kThreads = 6;
  constexpr Gfn kOwn = 64, kRead = kThreads * kOwn, kReadCount = 200;
  Bed bed(kRead + kReadCount, 48);
  for (Gfn gfn = kRead; gfn < kRead + kReadCount; ++gfn) {
    bed.words(gfn)[0] = gfn;
    ASSERT_EQ(bed.access->grant(gfn, 1, Right::kShared), 0);
  }
  std::atomic<unsigned> wrong{0};
  const auto work = [&](unsigned self) {
    std::mt19937 random(self);
    std::vector<std::uint64_t> expected(kOwn, 0);
    for (int i = 0; i < 4000; ++i) {
      const Gfn read = kRead + random() % kReadCount;
      const std::uint64_t* seen = bed.words(read);
      if (seen == nullptr || seen[0] != read || seen[511] != 0) ++wrong;
      const Gfn own = random() % kOwn, gfn = self * kOwn + own;
      std::uint64_t* words = bed.words(gfn);
      if (words == nullptr || words[3] != expected[own]) {
        ++wrong;
        continue;
      }
      words[3] = expected[own] = random();
      if (bed.access->grant(gfn, 1, Right::kExclusive) != 0) ++wrong;
      if (random() % 3 != 0) continue;
      if (bed.access->withdraw(gfn) != 0 || bed.access->drop_frame(gfn) != 0) ++wrong;
      expected[own] = 0;
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(bed.pages.crashes, 0u);
  EXPECT_EQ(bed.pages.mistakes, 0u);
  EXPECT_LE(bed.access->mapped(), 48u);
}

}  // namespace
}  // namespace xenspan::hypervisor::xen
