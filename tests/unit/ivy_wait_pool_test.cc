#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "dsm-rdma/ivy/wait_pool.h"

namespace xenspan::dsm::ivy {
namespace {

Waiter waiter(std::uint32_t txn, HostId requester = 0) {
  return {.txn = txn, .requester = requester};
}

TEST(WaitPool, QueuesAreFirstInFirstOut) {
  WaitPool pool(8);
  std::uint32_t a = 0, b = 0;
  for (std::uint32_t txn = 1; txn <= 3; ++txn) {
    a = pool.push(a, waiter(txn));
    b = pool.push(b, waiter(10 + txn));
  }
  Waiter out;
  for (std::uint32_t txn = 1; txn <= 3; ++txn) {
    a = pool.pop(a, out);
    EXPECT_EQ(out, waiter(txn));
    b = pool.pop(b, out);
    EXPECT_EQ(out, waiter(10 + txn));
  }
  EXPECT_EQ(a, 0u);
  EXPECT_EQ(b, 0u);
}

TEST(WaitPool, FindsAHostsRequest) {
  WaitPool pool(4);
  std::uint32_t tail = pool.push(0, waiter(1, 5));
  tail = pool.push(tail, waiter(2, 6));
  ASSERT_NE(pool.find(tail, 5), nullptr);
  EXPECT_EQ(pool.find(tail, 5)->txn, 1u);
  EXPECT_EQ(pool.find(tail, 7), nullptr);
  EXPECT_EQ(pool.find(0, 5), nullptr);
}

TEST(WaitPool, RefusesWhenFullAndRecovers) {
  WaitPool pool(2);
  std::uint32_t tail = pool.push(pool.push(0, waiter(1)), waiter(2));
  ASSERT_NE(tail, 0u);
  EXPECT_EQ(pool.push(tail, waiter(3)), 0u);
  Waiter out;
  tail = pool.pop(tail, out);
  EXPECT_EQ(out.txn, 1u);
  tail = pool.push(tail, waiter(3));
  ASSERT_NE(tail, 0u);
  tail = pool.pop(tail, out);
  EXPECT_EQ(out.txn, 2u);
  tail = pool.pop(tail, out);
  EXPECT_EQ(out.txn, 3u);
  EXPECT_EQ(tail, 0u);
}

TEST(WaitPool, NodesAreNeverSharedBetweenThreads) {
  constexpr unsigned kThreads = 4, kRounds = 20000, kDepth = 3;
  WaitPool pool(kThreads * kDepth);
  std::atomic<unsigned> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (unsigned round = 0; round < kRounds; ++round) {
        std::uint32_t tail = 0;
        for (unsigned i = 0; i < kDepth; ++i) {
          tail = pool.push(tail, waiter(round * kDepth + i, static_cast<HostId>(thread)));
        }
        for (unsigned i = 0; i < kDepth; ++i) {
          if (tail == 0) {
            ++wrong;  // there is room for everybody
            return;
          }
          Waiter out;
          tail = pool.pop(tail, out);
          if (out != waiter(round * kDepth + i, static_cast<HostId>(thread))) ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0u);
  std::uint32_t tail = 0;
  for (unsigned i = 0; i < kThreads * kDepth; ++i) {
    tail = pool.push(tail, waiter(i));
    ASSERT_NE(tail, 0u) << "a node was lost";
  }
  EXPECT_EQ(pool.push(tail, waiter(0)), 0u) << "a node was made twice";
}

}  // namespace
}  // namespace xenspan::dsm::ivy
