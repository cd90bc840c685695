// Engines over TCP: rights, contents, ranges, statistics, and how they end.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "dsm-rdma/engine_core.h"
#include "dsm-rdma/page_table.h"
#include "dsm-rdma/slot_table.h"
#include "tests/unit/engine_cluster.h"

namespace xenspan::dsm {
namespace {

using test::Cluster;
using test::ClusterOptions;

constexpr auto kFirstTouch = static_cast<std::size_t>(FaultKind::kFirstTouch);
constexpr auto kRead = static_cast<std::size_t>(FaultKind::kRead);
constexpr auto kWrite = static_cast<std::size_t>(FaultKind::kWrite);
constexpr auto kUpgrade = static_cast<std::size_t>(FaultKind::kUpgrade);

TEST(Engine, OneHostAloneSendsNothing) {
  Cluster cluster({.hosts = 1});
  ASSERT_EQ(cluster.failure(), "");
  ASSERT_TRUE(cluster.store(0, 5, 77));
  EXPECT_EQ(cluster.load(0, 5), 77u);
  EXPECT_EQ(cluster.engine(0).right(5), Right::kExclusive);
  EXPECT_EQ(cluster.engine(0).stats(0).traffic.messages_sent, 0u);
}

class EngineOverTcp : public testing::TestWithParam<bool> {
 protected:
  ClusterOptions options(unsigned hosts) {
    ClusterOptions options;
    options.hosts = hosts;
    options.encrypt = GetParam();
    return options;
  }
};
INSTANTIATE_TEST_SUITE_P(Encrypted, EngineOverTcp, testing::Bool());

TEST_P(EngineOverTcp, ReadWriteUpgrade) {
  Cluster cluster(options(3));
  ASSERT_EQ(cluster.failure(), "");
  for (Gfn gfn = 0; gfn < 64; ++gfn) {  // several managers
    ASSERT_TRUE(cluster.store(0, gfn, 100 + gfn));
    EXPECT_EQ(cluster.load(1, gfn), 100 + gfn);
    EXPECT_EQ(cluster.load(2, gfn), 100 + gfn);
    EXPECT_EQ(cluster.engine(0).right(gfn), Right::kShared);
    ASSERT_TRUE(cluster.store(2, gfn, 200 + gfn));  // upgrade
    EXPECT_EQ(cluster.engine(1).right(gfn), Right::kInvalid);
    EXPECT_EQ(cluster.backend(0).mapped(gfn), Right::kInvalid);
    ASSERT_TRUE(cluster.store(1, gfn, 300 + gfn));  // write fault
    EXPECT_EQ(cluster.load(0, gfn), 300 + gfn);
  }
  const EngineStats home = cluster.engine(0).stats(4), second = cluster.engine(2).stats(4);
  EXPECT_EQ(home.faults[kFirstTouch], 64u);
  EXPECT_EQ(second.faults[kRead], 64u);
  EXPECT_EQ(second.faults[kUpgrade], 64u);
  EXPECT_EQ(cluster.engine(1).stats(0).faults[kWrite], 64u);
  EXPECT_EQ(second.hottest.size(), 4u);
  EXPECT_EQ(second.hottest[0].faults, 2u);
  EXPECT_GE(second.traffic.pages_received, 64u);
  EXPECT_EQ(cluster.rights.violations, 0u);
}

TEST_P(EngineOverTcp, ZeroPagesStayOffTheWire) {
  Cluster cluster(options(2));
  ASSERT_EQ(cluster.failure(), "");
  for (Gfn gfn = 0; gfn < 32; ++gfn)
    EXPECT_EQ(cluster.load(1, gfn), 0u);  // never touched at the home
  ASSERT_TRUE(cluster.store(0, 40, 5));
  ASSERT_TRUE(cluster.store(1, 40, 0));  // has contents, becomes zero
  EXPECT_EQ(cluster.load(0, 40), 0u);    // over a frame that held 5
  EXPECT_EQ(cluster.transport(0).traffic().pages_sent, 1u);
  EXPECT_EQ(cluster.transport(1).traffic().pages_sent, 0u);
  EXPECT_EQ(cluster.engine(0).stats(0).zero_grants, 32u);
  EXPECT_EQ(cluster.backend(0).drops, 0u);
}

// A page that two hosts read and then write in turn costs each one fault a turn once they have
// learned it, and the values stay right; a page that is only read goes on being read.
TEST_P(EngineOverTcp, MigratoryPagesComeWithTheRightToWrite) {
  ClusterOptions with = options(2);
  with.prefetch = 4;
  Cluster cluster(with);
  ASSERT_EQ(cluster.failure(), "");
  constexpr std::uint64_t kTurns = 400;
  for (std::uint64_t turn = 0; turn < kTurns; ++turn) {
    const unsigned host = turn % 2;
    ASSERT_EQ(cluster.load(host, 7), turn);
    ASSERT_TRUE(cluster.store(host, 7, turn + 1));
    EXPECT_EQ(cluster.load(1, 9), 0u);
  }
  EXPECT_EQ(cluster.load(0, 7), kTurns);
  const EngineStats stats = cluster.engine(1).stats(0);
  EXPECT_GT(stats.migratory, 0u);
  EXPECT_EQ(stats.faults[kRead] + stats.faults[kWrite], kTurns / 2 + 1);  // and page 9, once
  EXPECT_EQ(stats.faults[kUpgrade], stats.faults[kRead] - 1);
  EXPECT_EQ(cluster.rights.violations, 0u);
}

// Counters that all hosts and threads increment: none may be lost, no reader may go back in time,
// and a page's other words always fit its counter.
void storm(Cluster& cluster, unsigned hosts, unsigned threads, Gfn pages, unsigned rounds) {
  std::vector<std::atomic<std::uint64_t>> floor(pages);
  std::atomic<unsigned> wrong{0}, stopped{0};
  const auto vcpu = [&](unsigned host, unsigned seed) {
    std::mt19937 random(seed);
    for (unsigned round = 0; round < rounds; ++round) {
      const Gfn gfn = random() % pages;
      const std::uint64_t before = floor[gfn].load();
      const bool write = random() % 2 == 0;
      const bool done = cluster.access(
          host, gfn, write ? Right::kExclusive : Right::kShared, [&](std::byte* page) {
            auto* words = reinterpret_cast<std::uint64_t*>(page);
            if (words[0] < before || words[100] != words[0] * 3 || words[511] != words[0] * 5)
              ++wrong;
            if (!write) return;
            ++words[0];
            words[100] = words[0] * 3;
            words[511] = words[0] * 5;
            floor[gfn].store(words[0]);
          });
      if (!done) ++stopped;
    }
  };
  std::vector<std::thread> running;
  for (unsigned host = 0; host < hosts; ++host) {
    for (unsigned i = 0; i < threads; ++i) running.emplace_back(vcpu, host, host * 100 + i);
  }
  for (std::thread& each : running) each.join();
  EXPECT_EQ(stopped, 0u) << cluster.engine(0).stop_cause();
  EXPECT_EQ(wrong, 0u);
  for (Gfn gfn = 0; gfn < pages; ++gfn)
    EXPECT_EQ(cluster.load(gfn % hosts, gfn), floor[gfn].load()) << gfn;
  EXPECT_EQ(cluster.rights.violations, 0u);
}

TEST_P(EngineOverTcp, StormOfFewPages) {
  ClusterOptions few = options(3);
  few.prefetch = 15;
  Cluster cluster(few);
  ASSERT_EQ(cluster.failure(), "");
  storm(cluster, 3, 2, 3, 400);
}

TEST_P(EngineOverTcp, StormOfManyPagesAndMoreThreadsThanLanes) {
  ClusterOptions wide = options(4);
  wide.lanes = 1;
  wide.around = 16;
  wide.prefetch = 15;
  Cluster cluster(wide);
  ASSERT_EQ(cluster.failure(), "");
  storm(cluster, 4, 3, 200, 300);
}

TEST(Engine, StormWithoutHoldWindow) {
  ClusterOptions options;
  options.hosts = 2;
  options.hold_us = 0;
  Cluster cluster(options);
  ASSERT_EQ(cluster.failure(), "");
  storm(cluster, 2, 2, 2, 300);
  EXPECT_EQ(cluster.engine(0).stats(0).held_back, 0u);
}

TEST(Engine, GrantedPagesAreHeldForTheirWindow) {
  ClusterOptions options;
  options.hosts = 2;
  options.hold_us = 200000;  // long enough that the other's request certainly falls into it
  Cluster cluster(options);
  ASSERT_EQ(cluster.failure(), "");
  Gfn gfn = 0;
  while (SlotTable(2).manager(gfn) != 1)
    ++gfn;  // a manager elsewhere would hear of the grant only after the window
  ASSERT_TRUE(cluster.store(0, gfn, 1));
  ASSERT_TRUE(cluster.store(1, gfn, 2));
  EXPECT_EQ(cluster.load(0, gfn), 2u);
  EXPECT_GE(cluster.engine(1).stats(0).held_back, 1u);
}

// A walk over remote pages takes few waits and few system calls, and gets the right contents.
TEST_P(EngineOverTcp, AWalkIsPrefetched) {
  ClusterOptions walk = options(2);
  walk.prefetch = 15;
  Cluster cluster(walk);
  ASSERT_EQ(cluster.failure(), "");
  for (Gfn gfn = 0; gfn < 500; ++gfn) ASSERT_TRUE(cluster.store(0, gfn, gfn + 1));
  cluster.backend(1).prefetch_below = 500;
  for (Gfn gfn = 0; gfn < 500; ++gfn) ASSERT_EQ(cluster.load(1, gfn), gfn + 1);
  const EngineStats stats = cluster.engine(1).stats(0);
  EXPECT_LE(stats.faults[kRead], 500u / 16 + 8);
  EXPECT_EQ(stats.faults[kRead] + stats.prefetched, 500u);
  EXPECT_GT(stats.prefetch_sampled, 0u);
  EXPECT_EQ(stats.prefetch_used, stats.prefetch_sampled);
  EXPECT_EQ(cluster.engine(1).right(500), Right::kInvalid);
  const auto messages = [&](unsigned host) {
    return cluster.transport(host).traffic().messages_sent;
  };
  // Most of what is asked for are runs of sixteen neighbours, or of a slot's block.
  EXPECT_LT(messages(1) * 4, 500u);
  EXPECT_LT(stats.batches * 8, 500u);
  EXPECT_LT(cluster.engine(0).stats(0).batches * 3, messages(0));
  // Upgrades of what was read, and writes of what was not.
  for (Gfn gfn = 0; gfn < 500; ++gfn) ASSERT_TRUE(cluster.store(1, gfn, gfn + 2));
  EXPECT_LE(cluster.engine(1).stats(0).faults[kUpgrade], 500u / 16 + 8);
  for (Gfn gfn = 0; gfn < 500; ++gfn) ASSERT_EQ(cluster.load(0, gfn), gfn + 2);
  EXPECT_EQ(cluster.rights.violations, 0u);
}

TEST(Engine, WhatTheLayoutForbidsMeanwhileIsNotMapped) {
  ClusterOptions options;
  options.hosts = 2;
  options.prefetch = 15;
  Cluster cluster(options);
  ASSERT_EQ(cluster.failure(), "");
  for (Gfn gfn = 0; gfn < 64; ++gfn) ASSERT_TRUE(cluster.store(0, gfn, gfn + 1));
  cluster.backend(1).prefetch_answers = 1;  // allowed when asked for, no more when it is there
  EXPECT_EQ(cluster.load(1, 10), 11u);
  EXPECT_EQ(cluster.load(1, 11), 12u);
  EXPECT_EQ(cluster.engine(1).right(12), Right::kShared);
  EXPECT_EQ(cluster.backend(1).mapped(12), Right::kInvalid);
  EXPECT_EQ(cluster.load(1, 12), 13u);
  EXPECT_EQ(cluster.engine(1).stats(0).faults[kRead], 2u);
}

TEST(Engine, FaultAroundMapsFreshNeighboursOnly) {
  ClusterOptions options;
  options.hosts = 2;
  options.around = 16;
  Cluster cluster(options);
  ASSERT_EQ(cluster.failure(), "");
  ASSERT_TRUE(cluster.store(1, 5, 9));
  ASSERT_TRUE(cluster.store(0, 0, 1));  // up to page 5, which is the other host's
  EXPECT_EQ(cluster.backend(0).grants, 1u);
  EXPECT_EQ(cluster.backend(0).mapped(4), Right::kExclusive);
  EXPECT_EQ(cluster.backend(0).mapped(5), Right::kInvalid);
  EXPECT_EQ(cluster.backend(0).mapped(6), Right::kInvalid);
  EXPECT_EQ(cluster.load(0, 5), 9u);
  EXPECT_EQ(cluster.load(0, 20), 0u);
  EXPECT_EQ(cluster.backend(0).mapped(31), Right::kExclusive);
  EXPECT_EQ(cluster.rights.violations, 0u);
}

TEST_P(EngineOverTcp, DiscardEmptiesEverywhere) {
  Cluster cluster(options(3));
  ASSERT_EQ(cluster.failure(), "");
  for (Gfn gfn = 0; gfn < 120; ++gfn) {
    ASSERT_TRUE(cluster.store(gfn % 3, gfn, gfn + 1));
    if (gfn % 4 == 0) {  // shared by two
      EXPECT_EQ(cluster.load((gfn + 1) % 3, gfn), gfn + 1);
    }
  }
  ASSERT_EQ(cluster.engine(0).discard(0, 120), Outcome::kGranted);
  for (Gfn gfn = 0; gfn < 120; ++gfn) {
    EXPECT_EQ(cluster.engine(0).right(gfn), Right::kExclusive);
    for (unsigned host = 0; host < 3; ++host) {
      EXPECT_EQ(cluster.backend(host).mapped(gfn), Right::kInvalid);
      EXPECT_EQ(*reinterpret_cast<std::uint64_t*>(cluster.backend(host).frame(gfn)), 0u)
          << host << " " << gfn;
    }
    EXPECT_EQ(cluster.load((gfn + 2) % 3, gfn), 0u);
  }
  // And by a host that is not the home, of pages that nobody has touched, too.
  ASSERT_TRUE(cluster.store(2, 200, 4));
  ASSERT_EQ(cluster.engine(1).discard(190, 40), Outcome::kGranted);
  EXPECT_EQ(cluster.load(0, 200), 0u);
  EXPECT_EQ(cluster.rights.violations, 0u);
}

TEST(Engine, DiscardOfUntouchedMemoryTouchesNoEntry) {
  ClusterOptions options;
  options.hosts = 2;
  options.pages = 1 << 18;  // 1 GiB
  Cluster cluster(options);
  ASSERT_EQ(cluster.failure(), "");
  ASSERT_TRUE(cluster.store(0, 1 << 17, 1));
  ASSERT_EQ(cluster.engine(0).discard(0, options.pages), Outcome::kGranted);
  const EngineStats stats = cluster.engine(0).stats(0);
  EXPECT_EQ(stats.table_bytes, PageTable::kChunkBytes);
  EXPECT_GE(stats.engine_bytes, sizeof(EngineCore));
  EXPECT_EQ(stats.pages_touched, 0u);
  EXPECT_EQ(stats.traffic.messages_sent, 0u);
  EXPECT_EQ(cluster.load(1, 1 << 17), 0u);
}

TEST_P(EngineOverTcp, RangesOverlapTheirRequests) {
  Cluster cluster(options(3));
  ASSERT_EQ(cluster.failure(), "");
  for (Gfn gfn = 0; gfn < 300; ++gfn) ASSERT_TRUE(cluster.store(gfn % 2, gfn, gfn + 1));
  ASSERT_EQ(cluster.engine(2).acquire_range(0, 300, Right::kShared), Outcome::kGranted);
  for (Gfn gfn = 0; gfn < 300; ++gfn) EXPECT_EQ(cluster.engine(2).right(gfn), Right::kShared);
  ASSERT_EQ(cluster.engine(2).acquire_range(0, 300, Right::kExclusive), Outcome::kGranted);
  for (Gfn gfn = 0; gfn < 300; ++gfn) {
    EXPECT_EQ(cluster.backend(2).mapped(gfn), Right::kExclusive);
    EXPECT_EQ(cluster.load(2, gfn), gfn + 1);
  }
  EXPECT_EQ(cluster.rights.violations, 0u);
}

TEST(Engine, RangesOfAllHostsAtOnce) {
  ClusterOptions options;
  options.hosts = 3;
  options.lanes = 1;  // one thread a host has a lane, the other goes by the service lane
  Cluster cluster(options);
  ASSERT_EQ(cluster.failure(), "");
  std::atomic<unsigned> stopped{0};
  std::vector<std::thread> running;
  for (unsigned i = 0; i < 6; ++i) {
    running.emplace_back([&, i] {
      for (unsigned round = 0; round < 4; ++round) {
        Engine& engine = cluster.engine(i % 3);
        const Outcome outcome =
            i == 5 ? engine.discard(20, 60)
                   : engine.acquire_range(10 * i, 64, i % 2 ? Right::kShared : Right::kExclusive);
        if (outcome == Outcome::kStopped) ++stopped;
      }
    });
  }
  for (std::thread& each : running) each.join();
  EXPECT_EQ(stopped, 0u) << cluster.engine(0).stop_cause();
  EXPECT_EQ(cluster.rights.violations, 0u);
}

TEST(Engine, UnmapKeepsRightsAndContents) {
  Cluster cluster({.hosts = 2});
  ASSERT_EQ(cluster.failure(), "");
  ASSERT_TRUE(cluster.store(0, 1, 11));
  ASSERT_TRUE(cluster.store(1, 2, 12));
  EXPECT_EQ(cluster.load(0, 2), 12u);
  cluster.engine(0).unmap(0, 1024);
  EXPECT_EQ(cluster.backend(0).mapped(1), Right::kInvalid);
  EXPECT_EQ(cluster.backend(0).mapped(2), Right::kInvalid);
  EXPECT_EQ(cluster.engine(0).right(1), Right::kExclusive);
  EXPECT_EQ(cluster.engine(0).right(2), Right::kShared);
  EXPECT_EQ(cluster.load(0, 1), 11u);
  EXPECT_EQ(cluster.load(0, 2), 12u);
  EXPECT_EQ(cluster.engine(0).stats(0).remaps, 2u);
}

TEST_P(EngineOverTcp, APeerThatDiesStopsEveryWaiter) {
  Cluster cluster(options(3));
  ASSERT_EQ(cluster.failure(), "");
  std::atomic<bool> killed{false};
  std::atomic<unsigned> ended{0};
  std::vector<std::thread> running;
  for (unsigned i = 0; i < 6; ++i) {
    running.emplace_back([&, i] {
      std::mt19937 random(i);
      for (std::uint64_t round = 0;; ++round) {
        if (!cluster.store(i % 2, random() % 20, round)) break;
        // The last host may be left with all twenty pages, and then waits for nobody.
        if (!cluster.engine(i % 2).stop_cause().empty()) break;
      }
      ++ended;
    });
  }
  std::thread other([&] {
    std::mt19937 random(99);
    while (!killed.load()) cluster.store(2, random() % 20, 1);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  killed = true;
  cluster.stop(2, "killed");
  other.join();
  for (std::thread& each : running) each.join();
  EXPECT_EQ(ended, 6u);
  for (unsigned host = 0; host < 2; ++host) {
    EXPECT_NE(cluster.engine(host).stop_cause().find("host h"), std::string::npos);
    EXPECT_NE(cluster.engine(host).stop_cause().find(" is lost"), std::string::npos)
        << cluster.engine(host).stop_cause();
    EXPECT_EQ(cluster.engine(host).acquire(1, Right::kShared), Outcome::kStopped);
    EXPECT_EQ(cluster.engine(host).discard(0, 100), Outcome::kStopped);
  }
  cluster.stop_all();  // joins whoever may still be reporting
  EXPECT_EQ(cluster.stops, 3u);
  EXPECT_EQ(cluster.rights.violations, 0u);
}

TEST(Engine, AFailingBackendStopsTheDomainWithItsCause) {
  Cluster cluster({.hosts = 2});
  ASSERT_EQ(cluster.failure(), "");
  cluster.backend(1).fail_grant = true;
  EXPECT_EQ(cluster.engine(1).acquire(9, Right::kExclusive), Outcome::kStopped);
  EXPECT_EQ(cluster.engine(1).stop_cause(),
            "page 9 cannot be mapped on host h1: Cannot allocate memory");
}

TEST(Engine, APageOutsideTheDomainStopsIt) {
  Cluster cluster({.hosts = 1, .pages = 100});
  ASSERT_EQ(cluster.failure(), "");
  EXPECT_EQ(cluster.engine(0).acquire(100, Right::kShared), Outcome::kStopped);
  EXPECT_NE(cluster.engine(0).stop_cause().find("outside"), std::string::npos);
}

}  // namespace
}  // namespace xenspan::dsm
