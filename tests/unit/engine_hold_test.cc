// The hold window, read-mostly pages and the order of invalidations, each alone; and engines that
// do without one feature each.
#include <gtest/gtest.h>

#include <random>

#include "dsm-rdma/hold_queue.h"
#include "dsm-rdma/one_by_one.h"
#include "dsm-rdma/returning.h"
#include "dsm-rdma/slot_table.h"
#include "tests/unit/engine_cluster.h"

namespace xenspan::dsm {
namespace {

// One turn of a page: granted, given up, and wanted again `later_ns` afterwards. The next window.
std::uint64_t turn(HoldQueue& queue, Gfn gfn, Right wanted, std::uint64_t later_ns) {
  queue.granted(gfn, Right::kExclusive);
  queue.lost(gfn);
  queue.wanted(gfn, wanted, now_ns() + later_ns);
  return queue.window_ns(gfn);
}
constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr unsigned kLongUs = 10'000'000;  // against whatever this machine does meanwhile

TEST(HoldWindow, GrowsWhereThePageIsWrittenAgainAtOnce) {
  HoldQueue queue(20);
  EXPECT_EQ(turn(queue, 7, Right::kExclusive, kSecond), 10'000u);
  queue.granted(7, Right::kExclusive);
  queue.lost(7);
  queue.wanted(7, Right::kExclusive, 0);
  EXPECT_EQ(queue.window_ns(7), 20'000u);
  for (int i = 0; i < 20; ++i) {
    queue.granted(7, Right::kExclusive);
    queue.lost(7);
    queue.wanted(7, Right::kExclusive, 0);
  }
  EXPECT_EQ(queue.window_ns(7), 500'000u);  // no further
  for (const Gfn gfn : {0, 8}) {
    queue.granted(gfn, Right::kExclusive);
    EXPECT_EQ(queue.window_ns(gfn), 20'000u);
  }  // each page for itself
}

TEST(HoldWindow, ShrinksWhereThisHostWaitsForAValue) {
  HoldQueue queue(40);
  EXPECT_EQ(turn(queue, 7, Right::kShared, 0), 20'000u);
  EXPECT_EQ(turn(queue, 7, Right::kShared, 0), 10'000u);
  for (int i = 0; i < 9; ++i) (void)turn(queue, 7, Right::kShared, 0);
  EXPECT_EQ(queue.window_ns(7), 5'000u);  // the faulting instruction is to be done all the same
}

// What this host wants to do later goes together with what is due, and leaves room for messages.
TEST(HoldQueue, RemindersAreDoneTogether) {
  HoldQueue queue(20);
  ivy::Message message{.kind = ivy::Kind::kReadRequest}, next;
  long wait_ns = 0;
  const std::uint64_t now = now_ns();
  const auto remind = [&](Gfn gfn, std::uint64_t due_ns, std::uint64_t early_ns) {
    message.gfn = gfn;
    return queue.remind(message, due_ns, early_ns);
  };
  ASSERT_TRUE(remind(1, now, 0));
  ASSERT_TRUE(remind(2, now + kSecond, 0));
  ASSERT_TRUE(remind(3, now + 2 * kSecond, 2 * kSecond));
  EXPECT_FALSE(queue.holds_message()) << "of another host";
  message.gfn = 4;
  ASSERT_TRUE(queue.push(message, now + 3 * kSecond));
  EXPECT_TRUE(queue.holds_message());
  ASSERT_TRUE(queue.pop_due(next, wait_ns));
  EXPECT_EQ(next.gfn, 1u);
  ASSERT_TRUE(queue.pop_with(next));
  EXPECT_EQ(next.gfn, 3u);
  EXPECT_FALSE(queue.pop_with(next));
  unsigned reminders = 0;
  while (remind(5, now + kSecond, 0)) ++reminders;
  EXPECT_GT(reminders, 50u);
  for (unsigned i = 0; i < reminders; ++i) EXPECT_TRUE(queue.push(message, now + kSecond));
}

TEST(HoldWindow, ReadCopiesAreGivenUpSoon) {
  HoldQueue queue(kLongUs);
  const std::uint64_t before = now_ns();
  queue.granted(7, Right::kExclusive);
  EXPECT_GE(queue.keep_until(7), before + std::uint64_t{kLongUs} * 1000);
  queue.granted(7, Right::kShared);
  EXPECT_LT(queue.keep_until(7), before + std::uint64_t{kLongUs} * 1000);
}

// Where vCPUs share a processor, a window has to last until the vCPU has had its turn.
TEST(HoldWindow, IsNeverShorterThanTheLeast) {
  HoldQueue queue(kLongUs, kLongUs);
  const std::uint64_t least = std::uint64_t{kLongUs} * 1000;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(turn(queue, 7, Right::kShared, kSecond), least);
  const std::uint64_t before = now_ns();
  queue.granted(7, Right::kShared);
  EXPECT_GE(queue.keep_until(7), before + least);
}

TEST(HoldWindow, WhatIsDueFirstLeavesFirst) {
  HoldQueue queue(1);
  for (const std::uint64_t due : {50, 10, 40, 20, 30})
    ASSERT_TRUE(queue.push({.kind = ivy::Kind::kInvalidate, .gfn = due}, due));
  ivy::Message message;
  long wait_ns;
  for (const Gfn due : {10, 20, 30, 40, 50}) {
    ASSERT_TRUE(queue.pop_due(message, wait_ns));
    EXPECT_EQ(message.gfn, due);
  }
  EXPECT_FALSE(queue.pop_due(message, wait_ns));
}

TEST(OneByOne, LetsOneOfATransactionOutAtATime) {
  OneByOne turns;
  const auto message = [](HostId to, std::uint32_t txn) {
    ivy::Message made{.kind = ivy::Kind::kInvalidate, .to = to, .requester = 3};
    made.txn = txn;
    made.gfn = 9;
    return made;
  };
  EXPECT_TRUE(turns.admit(message(0, 1)));
  EXPECT_FALSE(turns.admit(message(1, 1)));
  EXPECT_TRUE(turns.admit(message(5, 2)));  // another transaction does not wait
  EXPECT_FALSE(turns.admit(message(2, 1)));
  ivy::Message next;
  ASSERT_TRUE(turns.next(message(3, 1), next));
  EXPECT_EQ(next.to, 1);
  EXPECT_FALSE(turns.next(message(3, 2), next));
  ASSERT_TRUE(turns.next(message(3, 1), next));
  EXPECT_EQ(next.to, 2);
  EXPECT_FALSE(turns.next(message(3, 1), next));
  EXPECT_FALSE(turns.next(message(3, 1), next));
  EXPECT_TRUE(turns.admit(message(0, 1)));
}

TEST(Returning, IsWhatIsWantedAgainLateAfterEachLoss) {
  ReturningPages pages;
  constexpr std::uint64_t kLater = 2 * ReturningPages::kLateNs;
  std::uint64_t now = kSecond;
  const auto lose = [&](bool waited = true) { return pages.on_lost(5, now += kLater, waited); };
  const auto want = [&](Right right) { pages.on_wanted(5, right, now += kLater); };
  const auto learn = [&](Right right, unsigned rounds) {
    for (unsigned i = 0; i < rounds; ++i) {
      EXPECT_EQ(lose().due_ns, 0u) << "round " << i;
      want(right);
    }
  };
  want(Right::kShared);
  learn(Right::kShared, 2);
  auto reminder = lose();
  EXPECT_EQ(reminder.right, Right::kShared);
  // Half of the time that it was not wanted.
  EXPECT_EQ(reminder.due_ns, now + kLater / 2);
  // Watched and touched: it stays so. Not touched: it has to be learned anew.
  unsigned watched = 0;
  for (int i = 0; i < 40; ++i) watched += pages.to_watch(5) ? 1 : 0;
  EXPECT_EQ(watched, 10u);
  pages.on_watched(5);
  pages.on_touched(5, Right::kShared);
  EXPECT_NE(lose().due_ns, 0u);
  EXPECT_NE(lose().due_ns, 0u);
  pages.on_watched(5);
  EXPECT_EQ(lose().due_ns, 0u);
  want(Right::kShared);
  learn(Right::kShared, 1);
  EXPECT_NE(lose().due_ns, 0u);
  // The right to write needs more signs.
  want(Right::kExclusive);
  learn(Right::kExclusive, 3);
  EXPECT_EQ(lose().right, Right::kExclusive);
  // Lost to somebody who came for it early: that is no time to take it back.
  EXPECT_EQ(lose(false).due_ns, 0u);
  want(Right::kExclusive);
  EXPECT_EQ(lose().right, Right::kExclusive);
  // Who wants it at once waits for the other host.
  pages.on_wanted(5, Right::kExclusive, now + 1000);
  EXPECT_EQ(lose().due_ns, 0u);
}

// A page that host 0 writes and host 1 only reads comes back to host 1 by itself.
TEST(Returning, PagesComeBackBeforeTheyAreTouched) {
  test::ClusterOptions options;
  options.hosts = 2;
  options.prefetch = 15;
  test::Cluster cluster(options);
  ASSERT_EQ(cluster.failure(), "");
  const auto later = [] {
    std::this_thread::sleep_for(std::chrono::nanoseconds(2 * ReturningPages::kLateNs));
  };
  bool back = false;
  for (std::uint64_t round = 1; round < 200 && !back; ++round) {
    ASSERT_TRUE(cluster.store(0, 9, round));
    later();
    for (int i = 0; i < 20 && !back; ++i) {
      back = cluster.engine(1).right(9) == Right::kShared;
      if (!back) later();
      if (round < 4) break;  // it has not learned the page yet
    }
    ASSERT_EQ(cluster.load(1, 9), round);
  }
  EXPECT_TRUE(back);
  EXPECT_EQ(cluster.rights.violations, 0u);
}

TEST(Features, NamesAreChecked) {
  const auto set = features_of({"hold", "zero"});
  ASSERT_TRUE(set.ok());
  EXPECT_TRUE(set->has(Feature::kHold) && set->has(Feature::kZero));
  EXPECT_FALSE(set->has(Feature::kParallel));
  EXPECT_NE(features_of({"hodl"}).error().message.find("read-mostly"), std::string::npos);
}

class WithoutFeature : public testing::TestWithParam<Feature> {};

// Counters of four hosts on a few pages, read by all: right with each feature off.
TEST_P(WithoutFeature, NothingIsLost) {
  test::ClusterOptions options;
  options.hosts = 4;
  options.prefetch = 15;
  options.without.add(GetParam());
  test::Cluster cluster(options);
  ASSERT_EQ(cluster.failure(), "");
  constexpr unsigned kRounds = 300;
  constexpr Gfn kPages = 40;
  const auto vcpu = [&](unsigned host) {
    std::mt19937 random(host);
    for (unsigned round = 0; round < kRounds; ++round) {
      for (unsigned reads = 0; reads < 3; ++reads) (void)cluster.load(host, random() % kPages);
      cluster.access(host, random() % kPages, Right::kExclusive,
                     [](std::byte* page) { ++*reinterpret_cast<std::uint64_t*>(page); });
    }
  };
  std::vector<std::thread> running;
  for (unsigned host = 0; host < options.hosts; ++host) running.emplace_back(vcpu, host);
  for (std::thread& each : running) each.join();
  std::uint64_t sum = 0;
  for (Gfn gfn = 0; gfn < kPages; ++gfn) sum += cluster.load(1, gfn);
  EXPECT_EQ(sum, std::uint64_t{kRounds} * options.hosts);
  EXPECT_EQ(cluster.rights.violations, 0u);
  std::uint64_t held = 0;
  for (unsigned host = 0; host < options.hosts; ++host)
    held += cluster.engine(host).stats(0).held_back;
  EXPECT_TRUE(GetParam() != Feature::kHold || held == 0);
}

INSTANTIATE_TEST_SUITE_P(Each, WithoutFeature,
                         testing::Values(Feature::kPrefetch, Feature::kBatching, Feature::kHold,
                                         Feature::kMigratory, Feature::kReadMostly, Feature::kZero,
                                         Feature::kParallel),
                         [](const auto& each) {
                           std::string name(kFeatureNames[static_cast<std::size_t>(each.param)]);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// A write with three read copies elsewhere: with invalidations in turn the manager hears of each.
TEST(WithoutParallel, TheManagerHearsOfEachHolder) {
  const auto messages_of_a_write = [](bool parallel) {
    test::ClusterOptions options;
    options.hosts = 5;
    if (!parallel) options.without.add(Feature::kParallel);
    test::Cluster cluster(options);
    Gfn gfn = 0;
    while (SlotTable(5).manager(gfn) != 4) ++gfn;
    EXPECT_TRUE(cluster.store(0, gfn, 1));
    for (unsigned host = 1; host < 4; ++host) EXPECT_EQ(cluster.load(host, gfn), 1u);
    const std::uint64_t before = cluster.transport(4).traffic().messages_received;
    EXPECT_TRUE(cluster.store(0, gfn, 2));
    // The last copy may come after the write has ended.
    while (!parallel && cluster.transport(4).traffic().messages_received < before + 4)
      std::this_thread::yield();
    return cluster.transport(4).traffic().messages_received - before;
  };
  EXPECT_EQ(messages_of_a_write(true), 1u);
  EXPECT_EQ(messages_of_a_write(false), 4u);
}

}  // namespace
}  // namespace xenspan::dsm
