// Neighbouring pages whose messages come together: their mappings are changed together, and all is
// as if each had come alone. Every grant is checked against the rights of the other host.
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "tests/unit/engine_cluster.h"

namespace xenspan::dsm {
namespace {

using test::Cluster;
using test::ClusterOptions;
using test::MemoryBackend;

constexpr Gfn kPages = 256;

unsigned in_runs(Cluster& cluster, unsigned host, MemoryBackend::InRuns what) {
  return cluster.backend(host).in_runs[what];
}

// Host 0 writes all pages, host 1 reads them, then writes them, then host 0 reads again.
void exchange(Cluster& cluster) {
  ASSERT_EQ(cluster.failure(), "");
  for (Gfn gfn = 0; gfn < kPages; ++gfn) ASSERT_TRUE(cluster.store(0, gfn, gfn * 7 + 1));
  ASSERT_EQ(cluster.engine(1).acquire_range(0, kPages, Right::kShared), Outcome::kGranted);
  for (Gfn gfn = 0; gfn < kPages; ++gfn) {
    ASSERT_EQ(cluster.backend(1).mapped(gfn), Right::kShared) << gfn;
    ASSERT_EQ(cluster.load(1, gfn), gfn * 7 + 1) << gfn;
    ASSERT_EQ(cluster.backend(0).mapped(gfn), Right::kShared) << gfn;
  }
  ASSERT_EQ(cluster.engine(1).acquire_range(0, kPages, Right::kExclusive), Outcome::kGranted);
  for (Gfn gfn = 0; gfn < kPages; ++gfn) {
    ASSERT_EQ(cluster.backend(1).mapped(gfn), Right::kExclusive) << gfn;
    ASSERT_EQ(cluster.backend(0).mapped(gfn), Right::kInvalid) << gfn;
    ASSERT_TRUE(cluster.store(1, gfn, gfn * 5 + 2));
  }
  for (Gfn gfn = 0; gfn < kPages; ++gfn) ASSERT_EQ(cluster.load(0, gfn), gfn * 5 + 2) << gfn;
  EXPECT_EQ(cluster.rights.violations, 0u);
  EXPECT_EQ(cluster.stops, 0u);
}

TEST(EngineRuns, NeighboursThatComeTogetherAreMappedTogether) {
  Cluster cluster({.pages = kPages, .hold_us = 0});
  exchange(cluster);
  EXPECT_GT(in_runs(cluster, 0, MemoryBackend::kProtected), 0u);
  EXPECT_GT(in_runs(cluster, 0, MemoryBackend::kWithdrawn), 0u);
  EXPECT_GT(in_runs(cluster, 1, MemoryBackend::kFilled), 0u);
  EXPECT_GT(in_runs(cluster, 1, MemoryBackend::kRaised), 0u);
}

TEST(EngineRuns, WithoutBatchingEachIsAlone) {
  ClusterOptions options{.pages = kPages, .hold_us = 0};
  options.without.add(Feature::kBatching);
  Cluster cluster(options);
  exchange(cluster);
  for (unsigned host = 0; host < 2; ++host) {
    for (const auto& pages : cluster.backend(host).in_runs) EXPECT_EQ(pages, 0u);
  }
}

TEST(EngineRuns, HeldPagesInARunKeepTheirMapping) {
  // Windows longer than the exchange of messages: some pages of each run are held back.
  Cluster cluster({.pages = kPages, .hold_us = 300});
  exchange(cluster);
}

TEST(EngineRuns, EmptyPagesAreMappedTogetherAndStayEmpty) {
  Cluster cluster({.pages = kPages, .hold_us = 0});
  ASSERT_EQ(cluster.failure(), "");
  ASSERT_EQ(cluster.engine(1).acquire_range(0, kPages, Right::kExclusive), Outcome::kGranted);
  for (Gfn gfn = 0; gfn < kPages; ++gfn) {
    ASSERT_EQ(cluster.load(1, gfn), 0u);
    ASSERT_TRUE(cluster.store(1, gfn, gfn + 1));
  }
  ASSERT_EQ(cluster.engine(1).discard(0, kPages), Outcome::kGranted);
  for (Gfn gfn = 0; gfn < kPages; ++gfn) ASSERT_EQ(cluster.load(0, gfn), 0u) << gfn;
  // A frame that had contents once: they do not come back.
  ASSERT_EQ(cluster.engine(1).acquire_range(0, kPages, Right::kExclusive), Outcome::kGranted);
  for (Gfn gfn = 0; gfn < kPages; ++gfn) ASSERT_EQ(cluster.load(1, gfn), 0u) << gfn;
  EXPECT_EQ(cluster.rights.violations, 0u);
}

std::uint64_t messages_sent(Cluster& cluster, unsigned host) {
  return cluster.transport(host).traffic().messages_sent;
}

// What a host waited for has been counted there; its sender may count it a little later.
std::uint64_t messages_received(Cluster& cluster, unsigned host) {
  return cluster.transport(host).traffic().messages_received;
}

TEST(EngineRuns, WhatNeighboursAreAskedForIsOneMessage) {
  for (const bool batching : {true, false}) {
    ClusterOptions options{.pages = kPages, .hold_us = 0};
    if (!batching) options.without.add(Feature::kBatching);
    Cluster cluster(options);
    ASSERT_EQ(cluster.failure(), "");
    for (Gfn gfn = 0; gfn < kPages; ++gfn) ASSERT_TRUE(cluster.store(0, gfn, gfn + 1));
    // A block of pages with one manager, asked for at once.
    ASSERT_EQ(cluster.engine(1).acquire_range(0, SlotTable::kBlockPages, Right::kShared),
              Outcome::kGranted);
    EXPECT_EQ(messages_sent(cluster, 1), batching ? 1u : SlotTable::kBlockPages);
    for (Gfn gfn = 0; gfn < SlotTable::kBlockPages; ++gfn) ASSERT_EQ(cluster.load(1, gfn), gfn + 1);
  }
}

// A long range does not wait for the answers to a lane's requests before it asks for more.
TEST(EngineRuns, ALongRangeIsAskedForInFewExchanges) {
  constexpr unsigned kMany = 1024;
  Cluster cluster({.pages = kMany, .hold_us = 0});
  ASSERT_EQ(cluster.failure(), "");
  for (Gfn gfn = 0; gfn < kMany; ++gfn) ASSERT_TRUE(cluster.store(0, gfn, gfn + 1));
  const auto batches = [&] { return cluster.engine(1).stats(0).batches; };
  ASSERT_EQ(cluster.engine(1).acquire_range(0, kMany, Right::kShared), Outcome::kGranted);
  EXPECT_LT(batches(), kMany / Requests::kWindow / 2);
  for (Gfn gfn = 0; gfn < kMany; ++gfn) {
    ASSERT_EQ(cluster.backend(1).mapped(gfn), Right::kShared) << gfn;
    ASSERT_EQ(cluster.load(1, gfn), gfn + 1);
  }
  const std::uint64_t before = batches();
  ASSERT_EQ(cluster.engine(1).discard(0, kMany), Outcome::kGranted);
  EXPECT_LT(batches() - before, kMany / Requests::kWindow / 2);
  for (unsigned host = 0; host < 2; ++host) {
    for (Gfn gfn = 0; gfn < kMany; ++gfn) ASSERT_EQ(cluster.load(host, gfn), 0u);
  }
}

// The manager owns the pages and the other host has copies: it answers each with a grant and an
// acknowledgement, and all of them are two messages.
TEST(EngineRuns, PagesThatAreDiscardedTogetherAreDroppedTogether) {
  constexpr unsigned kBlock = SlotTable::kBlockPages;
  Cluster cluster({.pages = kPages, .hold_us = 0});
  ASSERT_EQ(cluster.failure(), "");
  const SlotTable slots(2);
  Gfn first = 0;
  while (slots.manager(first) != 1) first += kBlock;
  ASSERT_LT(first, kPages);
  for (Gfn gfn = first; gfn < first + kBlock; ++gfn) {
    ASSERT_TRUE(cluster.store(1, gfn, gfn + 1));
    ASSERT_EQ(cluster.load(0, gfn), gfn + 1);
  }
  const std::uint64_t before = messages_received(cluster, 0);
  ASSERT_EQ(cluster.engine(0).discard(first, kBlock), Outcome::kGranted);
  EXPECT_EQ(messages_received(cluster, 0) - before, 2u);
  EXPECT_EQ(in_runs(cluster, 1, MemoryBackend::kDropped), kBlock);
  EXPECT_GT(in_runs(cluster, 0, MemoryBackend::kDropped), 0u);
  for (unsigned host = 0; host < 2; ++host) {
    EXPECT_EQ(cluster.backend(host).drops, kBlock) << host;
    for (Gfn gfn = first; gfn < first + kBlock; ++gfn) ASSERT_EQ(cluster.load(host, gfn), 0u);
  }
  EXPECT_EQ(cluster.rights.violations, 0u);
}

// All hosts at once on the same pages, ranges that overlap and single touches: no value is lost.
TEST(EngineRuns, HostsThatFightForRangesLoseNothing) {
  constexpr unsigned kHosts = 3, kRounds = 40;
  constexpr Gfn kFew = 48;
  Cluster cluster({.hosts = kHosts, .pages = kFew, .hold_us = 5});
  ASSERT_EQ(cluster.failure(), "");
  std::vector<std::thread> threads;
  for (unsigned host = 0; host < kHosts; ++host) {
    threads.emplace_back([&, host] {
      for (unsigned round = 0; round < kRounds; ++round) {
        const Right right = (round + host) % 3 == 0 ? Right::kShared : Right::kExclusive;
        if (cluster.engine(host).acquire_range(host * 4, kFew - host * 8, right) !=
            Outcome::kGranted)
          return;
        for (Gfn gfn = 0; gfn < kFew; ++gfn) {
          cluster.access(host, gfn, Right::kExclusive, [](std::byte* page) {
            std::uint64_t value;
            std::memcpy(&value, page, sizeof value);
            ++value;
            std::memcpy(page, &value, sizeof value);
          });
        }
      }
    });
  }
  for (std::thread& each : threads) each.join();
  for (Gfn gfn = 0; gfn < kFew; ++gfn) EXPECT_EQ(cluster.load(0, gfn), kHosts * kRounds) << gfn;
  EXPECT_EQ(cluster.rights.violations, 0u);
  EXPECT_EQ(cluster.stops, 0u);
}

}  // namespace
}  // namespace xenspan::dsm
