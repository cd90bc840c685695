#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "dsm-rdma/slot_table.h"

namespace xenspan::dsm {
namespace {

std::map<HostId, unsigned> shares(const SlotTable& table) {
  std::map<HostId, unsigned> count;
  for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot) ++count[table.manager_of_slot(slot)];
  return count;
}

unsigned moved(const SlotTable& a, const SlotTable& b) {
  unsigned count = 0;
  for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot) {
    count += a.manager_of_slot(slot) != b.manager_of_slot(slot);
  }
  return count;
}

void expect_even(const SlotTable& table, unsigned hosts) {
  const auto count = shares(table);
  ASSERT_EQ(count.size(), hosts);
  for (const auto& [host, slots] : count) {
    EXPECT_GE(slots, SlotTable::kSlots / hosts) << "host " << int{host};
    EXPECT_LE(slots, SlotTable::kSlots / hosts + 1) << "host " << int{host};
  }
}

TEST(SlotTable, SpreadsSlotsEvenly) {
  for (unsigned hosts : {1u, 2u, 3u, 7u, 64u}) expect_even(SlotTable(hosts), hosts);
}

TEST(SlotTable, ABlockHasOneManagerAndBlocksSpread) {
  const SlotTable table(4);
  std::map<HostId, unsigned> blocks;
  for (Gfn block = 0; block < 4000; ++block) {
    const Gfn first = block * SlotTable::kBlockPages;
    for (Gfn page = 1; page < SlotTable::kBlockPages; ++page) {
      ASSERT_EQ(table.manager(first), table.manager(first + page));
    }
    ++blocks[table.manager(first)];
  }
  // Binomial with mean 1000 and standard deviation 27: ten of them to either side.
  for (const auto& [host, count] : blocks) EXPECT_NEAR(count, 1000, 270) << "host " << int{host};
}

TEST(SlotTable, ALostHostsSlotsAloneMove) {
  const SlotTable before(4);
  SlotTable after = before;
  after.rebalance(0b1011);
  expect_even(after, 3);
  EXPECT_EQ(moved(before, after), 256u);
}

TEST(SlotTable, ANewHostTakesItsShareAndNoMore) {
  const SlotTable before(3);
  SlotTable after = before;
  after.rebalance(0b1111);
  expect_even(after, 4);
  EXPECT_EQ(moved(before, after), 256u);
}

TEST(SlotTable, NothingMovesWhenNothingChanged) {
  for (unsigned hosts : {1u, 3u, 7u, 60u}) {
    SlotTable table(hosts);
    table.rebalance((HostMask{1} << hosts) - 1);
    EXPECT_EQ(table, SlotTable(hosts)) << hosts << " hosts";
  }
}

}  // namespace
}  // namespace xenspan::dsm
