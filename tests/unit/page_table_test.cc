// Which parts of the page table are in use, and how much that is.
#include "dsm-rdma/page_table.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace xenspan::dsm {
namespace {

constexpr Gfn kChunk = PageTable::kChunkPages;

std::vector<Gfn> active_chunks(const PageTable& table) {
  std::vector<Gfn> chunks;
  for (Gfn gfn = table.next_active(0, table.pages()); gfn < table.pages();
       gfn = table.next_active((gfn / kChunk + 1) * kChunk, table.pages())) {
    chunks.push_back(gfn / kChunk);
  }
  return chunks;
}

TEST(PageTable, NothingIsInUseAtFirst) {
  PageTable table;
  ASSERT_TRUE(table.create(1000 * kChunk));
  EXPECT_EQ(table.active_bytes(), 0u);
  EXPECT_EQ(table.next_active(0, table.pages()), table.pages());
}

TEST(PageTable, FindsChunksWhereverTheyAre) {
  PageTable table;
  ASSERT_TRUE(table.create(1000 * kChunk + 3));
  const std::vector<Gfn> used = {0, 1, 62, 63, 64, 127, 128, 640, 1000};
  for (Gfn chunk : used) table.activate(chunk * kChunk + 2);
  for (Gfn chunk : used) table.activate(chunk * kChunk);
  EXPECT_EQ(active_chunks(table), used);
  EXPECT_EQ(table.active_bytes(), used.size() * PageTable::kChunkBytes);
  EXPECT_TRUE(table.active(63 * kChunk + kChunk - 1));
  EXPECT_FALSE(table.active(65 * kChunk));
}

TEST(PageTable, ASearchStartsAndEndsWhereItIsTold) {
  PageTable table;
  ASSERT_TRUE(table.create(200 * kChunk));
  table.activate(5 * kChunk);
  table.activate(70 * kChunk);
  EXPECT_EQ(table.next_active(5 * kChunk + 7, table.pages()), 5 * kChunk + 7);
  EXPECT_EQ(table.next_active(6 * kChunk + 7, table.pages()), 70 * kChunk);
  EXPECT_EQ(table.next_active(6 * kChunk, 70 * kChunk - 1), 70 * kChunk - 1);
  EXPECT_EQ(table.next_active(71 * kChunk, table.pages()), table.pages());
}

TEST(PageTable, ThreadsCountAChunkOnce) {
  PageTable table;
  ASSERT_TRUE(table.create(640 * kChunk));
  std::vector<std::jthread> threads;
  for (unsigned i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (Gfn chunk = 0; chunk < 640; ++chunk) table.activate(chunk * kChunk);
    });
  }
  threads.clear();
  EXPECT_EQ(table.active_bytes(), 640 * PageTable::kChunkBytes);
}

}  // namespace
}  // namespace xenspan::dsm
