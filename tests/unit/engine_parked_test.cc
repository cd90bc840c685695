#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "dsm-rdma/parked.h"

namespace xenspan::dsm {
namespace {

ivy::Message message(Gfn gfn, std::uint32_t txn) {
  return {.kind = ivy::Kind::kReadForward, .txn = txn, .gfn = gfn};
}

TEST(ParkedMessages, APagesMessagesComeBackInOrder) {
  ParkedMessages parked(8);
  // 0x100 and 0x001 share a queue (parked.h).
  for (std::uint32_t txn = 1; txn <= 3; ++txn) {
    ASSERT_TRUE(parked.push(message(0x100, txn)));
    ASSERT_TRUE(parked.push(message(0x001, 10 + txn)));
  }
  ivy::Message out;
  EXPECT_FALSE(parked.pop(7, out));
  for (std::uint32_t txn = 1; txn <= 3; ++txn) {
    ASSERT_TRUE(parked.pop(0x001, out));
    EXPECT_EQ(out, message(0x001, 10 + txn));
  }
  EXPECT_FALSE(parked.pop(0x001, out));
  ASSERT_TRUE(parked.push(message(0x001, 20)));
  for (std::uint32_t txn = 1; txn <= 3; ++txn) {
    ASSERT_TRUE(parked.pop(0x100, out));
    EXPECT_EQ(out, message(0x100, txn));
  }
  ASSERT_TRUE(parked.pop(0x001, out));
  EXPECT_EQ(out.txn, 20u);
}

TEST(ParkedMessages, RefusesWhenFullAndRecovers) {
  ParkedMessages parked(2);
  ASSERT_TRUE(parked.push(message(1, 1)));
  ASSERT_TRUE(parked.push(message(2, 2)));
  EXPECT_FALSE(parked.push(message(1, 3)));
  ivy::Message out;
  ASSERT_TRUE(parked.pop(2, out));
  ASSERT_TRUE(parked.push(message(1, 3)));
  ASSERT_TRUE(parked.pop(1, out));
  EXPECT_EQ(out.txn, 1u);
  ASSERT_TRUE(parked.pop(1, out));
  EXPECT_EQ(out.txn, 3u);
}

TEST(ParkedMessages, PagesOfSeveralThreadsKeepApart) {
  constexpr unsigned kThreads = 4, kRounds = 20000, kDepth = 3;
  ParkedMessages parked(kThreads * kDepth);
  std::atomic<unsigned> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      // Two threads share each queue.
      constexpr Gfn kGfns[kThreads] = {0x000, 0x101, 0x001, 0x100};
      const Gfn gfn = kGfns[thread];
      for (unsigned round = 0; round < kRounds; ++round) {
        for (unsigned i = 0; i < kDepth; ++i) wrong += !parked.push(message(gfn, round + i));
        for (unsigned i = 0; i < kDepth; ++i) {
          ivy::Message out;
          wrong += !parked.pop(gfn, out) || out != message(gfn, round + i);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0u);
  for (unsigned i = 0; i < kThreads * kDepth; ++i) EXPECT_TRUE(parked.push(message(1, i)));
  EXPECT_FALSE(parked.push(message(1, 0))) << "a node was made twice";
}

}  // namespace
}  // namespace xenspan::dsm
