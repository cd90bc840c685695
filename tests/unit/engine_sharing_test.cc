// Who fights over what: the tables, and what engines put into them.
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "dsm-rdma/sharing.h"
#include "tests/unit/engine_cluster.h"

namespace xenspan::dsm {
namespace {

class SharedPages : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(table_.create().ok()); }
  void touch(std::uint16_t vcpu, Gfn gfn, std::uint16_t offset, bool writes = true,
             unsigned times = 1, HostId giver = 1) {
    for (unsigned i = 0; i < times; ++i) table_.note({0, vcpu, offset}, gfn, writes, giver);
  }
  Sharing::Page page(Gfn gfn) {
    for (auto& each : table_.report(SIZE_MAX).pages)
      if (each.gfn == gfn) return each;
    return {gfn, 0, {}};
  }
  SharingTable table_;
};

TEST_F(SharedPages, CountWhoTookHowOftenFromWhom) {
  touch(3, 7, 0, true, 5, 1);
  touch(3, 8, 0, false, 2, 63);
  touch(1023, 9, 0, true, 1, 0);
  const auto taken = table_.report(0).taken;
  ASSERT_EQ(taken.size(), 3u);
  EXPECT_EQ(taken[0].vcpu, 3u);
  EXPECT_EQ(taken[0].from, 1u);
  EXPECT_EQ(taken[0].faults, 5u);
  EXPECT_EQ(taken[1].from, 63u);
  EXPECT_EQ(taken[1].faults, 2u);
  EXPECT_EQ(taken[2].vcpu, 1023u);
  EXPECT_TRUE(table_.report(0).pages.empty());
}

TEST_F(SharedPages, KeepEachVcpusBytes) {
  touch(0, 5, 4088, true, 3);
  touch(1, 5, 16, false, 2);
  touch(1, 5, 16, true);
  const auto found = page(5);
  EXPECT_EQ(found.faults, 6u);
  ASSERT_EQ(found.users.size(), 2u);
  EXPECT_EQ(found.users[0].vcpu, 0u);
  EXPECT_EQ(found.users[0].low, 4088u);
  EXPECT_EQ(found.users[0].high, 4088u);
  EXPECT_EQ(found.users[0].faults, 3u);
  EXPECT_EQ(found.users[1].low, 16u);
  EXPECT_TRUE(found.users[1].writes);
  EXPECT_EQ(found.users[1].faults, 3u);
}

TEST_F(SharedPages, TheHotByteStaysExactWhenOthersAreTouchedToo) {
  touch(2, 5, 64, true, 100);
  for (std::uint16_t offset = 1000; offset < 1040; offset = static_cast<std::uint16_t>(offset + 8))
    touch(2, 5, offset);
  const auto found = page(5);
  EXPECT_EQ(found.faults, 105u);  // nothing of one vCPU is lost
  EXPECT_LE(found.users.size(), SharingTable::kRangesOfVcpu);
  EXPECT_EQ(found.users[0].low, 64u);
  EXPECT_EQ(found.users[0].high, 64u);
  EXPECT_EQ(found.users[0].faults, 100u);
  for (const auto& user : found.users) {
    EXPECT_LE(user.high, 1032u);
    EXPECT_GE(user.low, 64u);
  }
}

TEST_F(SharedPages, AVcpuThatFightsMoreThanOthersGetsAPlace) {
  for (std::uint16_t vcpu = 0; vcpu < SharingTable::kSlots; ++vcpu) touch(vcpu, 5, 0);
  touch(900, 5, 8, true, 50);
  std::map<unsigned, std::uint32_t> faults;
  for (const auto& user : page(5).users) faults[user.vcpu] = user.faults;
  EXPECT_GE(faults[900], 49u);
}

TEST_F(SharedPages, AHotPageOutlivesAStreamOfOthers) {
  touch(0, 77, 8, true, 1000);
  for (Gfn gfn = 1000; gfn < 100'000; ++gfn) touch(1, gfn, 0, false);
  const auto report = table_.report(10);
  ASSERT_EQ(report.pages.size(), 10u);
  EXPECT_EQ(report.pages[0].gfn, 77u);
  EXPECT_EQ(report.pages[0].faults, 1000u);
  EXPECT_EQ(report.pages[0].users.size(), 1u);
}

TEST_F(SharedPages, APageThatIsHotNowTakesThePlaceOfOneThatWas) {
  // More pages than there is room for, each faulted on a little: some set is full of them.
  for (Gfn gfn = 0; gfn < 100'000; ++gfn) touch(1, gfn, 0, true, 2);
  touch(0, 500'000, 8, true, 100);
  EXPECT_GE(page(500'000).faults, 80u);
  EXPECT_EQ(page(500'000).users.size(), 1u);  // nothing of its predecessor
}

TEST_F(SharedPages, NobodysTouchIsNotCounted) {
  touch(kNoVcpu, 5, 0);
  touch(0, 5, 4096);
  touch(0, 5, 0, true, 1, kNoHost);
  EXPECT_TRUE(table_.report(9).taken.empty());
  EXPECT_TRUE(table_.report(9).pages.empty());
}

TEST_F(SharedPages, TheHighestGfnIsAPageLikeOthers) {
  touch(0, (Gfn{1} << 32) - 1, 8);
  EXPECT_EQ(page((Gfn{1} << 32) - 1).faults, 1u);
}

TEST_F(SharedPages, ThreadsMayRace) {
  std::vector<std::thread> threads;
  for (std::uint16_t vcpu = 0; vcpu < 4; ++vcpu)
    threads.emplace_back([this, vcpu] {
      for (Gfn i = 0; i < 20'000; ++i) touch(vcpu, i % 3 == 0 ? 1 : i, vcpu);
    });
  for (auto& thread : threads) thread.join();
  std::uint64_t taken = 0;
  const auto report = table_.report(SIZE_MAX);
  for (const auto& each : report.taken) taken += each.faults;
  EXPECT_EQ(taken, 80'000u);
  for (const auto& each : report.pages) EXPECT_LT(each.gfn, 20'000u);
}

// --- engines ---

using test::Cluster;

// As Cluster::access, by a vCPU.
void touch(Cluster& cluster, unsigned host, Gfn gfn, Right needed, Touch touch) {
  while (
      !cluster.backend(host).touch(gfn, needed, [](std::byte* page) { page[0] |= std::byte{1}; }))
    ASSERT_EQ(cluster.engine(host).acquire(gfn, needed, touch), Outcome::kGranted);
}

std::map<unsigned, std::uint64_t> given_by(const Sharing& sharing, unsigned vcpu) {
  std::map<unsigned, std::uint64_t> given;
  for (const auto& each : sharing.taken)
    if (each.vcpu == vcpu) given[each.from] += each.faults;
  return given;
}

TEST(EngineSharing, AFaultIsCountedForTheVcpuAndTheHostThatHadThePage) {
  Cluster cluster({.hosts = 3});
  ASSERT_EQ(cluster.failure(), "");
  using Given = std::map<unsigned, std::uint64_t>;
  for (Gfn gfn = 0; gfn < 16; ++gfn) {                       // several managers
    touch(cluster, 0, gfn, Right::kExclusive, {0, 10, 0});   // fresh: taken from nobody
    touch(cluster, 1, gfn, Right::kExclusive, {0, 11, 8});   // from host 0
    touch(cluster, 2, gfn, Right::kShared, {0, 12, 16});     // from host 1
    touch(cluster, 2, gfn, Right::kExclusive, {0, 12, 24});  // an upgrade: host 1 gives its copy up
    touch(cluster, 0, gfn, Right::kExclusive, {0, 10, 32});  // from host 2
  }
  EXPECT_EQ(given_by(cluster.engine(0).sharing(99), 10), (Given{{2, 16}}));
  EXPECT_EQ(given_by(cluster.engine(1).sharing(99), 11), (Given{{0, 16}}));
  EXPECT_EQ(given_by(cluster.engine(2).sharing(99), 12), (Given{{1, 32}}));
  const auto pages = cluster.engine(2).sharing(99).pages;
  ASSERT_EQ(pages.size(), 16u);
  for (const auto& page : pages) {
    ASSERT_EQ(page.users.size(), 2u);
    EXPECT_EQ(page.users[0].low, 16u);
    EXPECT_FALSE(page.users[0].writes);
    EXPECT_EQ(page.users[1].low, 24u);
    EXPECT_TRUE(page.users[1].writes);
  }
}

TEST(EngineSharing, WhoSendsTheContentsCountsBeforeReaders) {
  Cluster cluster({.hosts = 4});
  ASSERT_EQ(cluster.failure(), "");
  using Given = std::map<unsigned, std::uint64_t>;
  for (Gfn gfn = 0; gfn < 16; ++gfn) {
    touch(cluster, 1, gfn, Right::kExclusive, {0, 1, 0});
    touch(cluster, 0, gfn, Right::kShared, {0, 0, 0});
    touch(cluster, 3, gfn, Right::kShared, {0, 3, 0});
    touch(cluster, 2, gfn, Right::kExclusive, {0, 2, 0});  // one fault, however many gave a copy up
  }
  EXPECT_EQ(given_by(cluster.engine(2).sharing(0), 2), (Given{{1, 16}}));
}

TEST(EngineSharing, WithoutAVcpuNothingIsCounted) {
  Cluster cluster({.hosts = 2});
  ASSERT_EQ(cluster.failure(), "");
  ASSERT_TRUE(cluster.store(0, 1, 7));
  ASSERT_TRUE(cluster.store(1, 1, 8));
  EXPECT_TRUE(cluster.engine(1).sharing(9).taken.empty());
  EXPECT_TRUE(cluster.engine(1).sharing(9).pages.empty());
}

}  // namespace
}  // namespace xenspan::dsm
