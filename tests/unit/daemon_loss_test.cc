// What was lost with a host, as one sentence.
#include <gtest/gtest.h>

#include "dom0-daemon/daemon/loss_report.h"
#include "dom0-daemon/daemon/quiet.h"

namespace xenspan::daemon {
namespace {

DomainRecord three_hosts() {
  DomainRecord record;
  record.home = "a";
  record.vcpus = {{"a", 0}, {"b", 0}, {"b", 1}, {"c", 0}};
  return record;
}

TEST(Loss, PagesThatNobodyElseHeldAreNamed) {
  const std::map<std::string, Json> holdings{
      {"a", Json{{"alone", {{16, 2}, {18, 4}}}, {"held", {{100, 1}}}, {"gone", {{99, 4}}}}},
      {"c", Json{{"alone", {{64, 1}}}, {"held", {{102, 10}}}, {"gone", {{500, 1}}}}}};
  const LostPages pages = lost_pages(holdings, "a", 2);
  ASSERT_EQ(pages.alone.size(), 2U);
  EXPECT_EQ(pages.alone[0].count, 6U);
  ASSERT_EQ(pages.orphaned.size(), 2U);
  EXPECT_EQ(pages.orphaned[0].first, 99U);
  EXPECT_EQ(pages.orphaned[0].count, 1U);
  EXPECT_EQ(pages.orphaned[1].first, 101U);
  EXPECT_EQ(pages.orphaned[1].count, 1U);
  EXPECT_EQ(bytes_to_name(pages),
            (std::vector<std::uint64_t>{16 * 4096, 64 * 4096, 99 * 4096, 101 * 4096}));
  EXPECT_EQ(loss_sentence({{"b"}, "its slice ended with signal 9", 2, {"a", "c"}}, three_hosts(),
                          pages, {"pool (prog)", "", "[heap]", "[heap]+0x2000"}),
            "lost host b (epoch 2, agreed on by a and c): its slice ended with signal 9; vCPUs 1 "
            "and 2 ran there; 7 pages that nobody else held: gfns 0x10-0x15 pool (prog), gfn 0x40; "
            "2 pages managed there that nobody else held: gfn 0x63 [heap], gfn 0x65 [heap]+0x2000");
}

TEST(Loss, WhatIsNotKnownIsSaid) {
  const LostPages pages = lost_pages({{"a", Json::object()}}, "a", 2);
  EXPECT_EQ(loss_sentence({{"d"}, "no sign of life", 0, {}}, three_hosts(), pages, {}),
            "lost host d: no sign of life; no vCPU ran there; what else it held is not known");
  // Nonsense of a slice is no page.
  const LostPages odd =
      lost_pages({{"a", Json{{"alone", {{1}, {-1, 2}, "x"}}, {"gone", 3}}}}, "a", 1);
  EXPECT_TRUE(odd.alone.empty());
  EXPECT_TRUE(odd.orphaned.empty());
}

TEST(Loss, ADomainThatGoesOnSaysSo) {
  EXPECT_EQ(survived_sentence({{"b"}, "no sign of life", 3, {"a", "c"}}),
            "lost host b (epoch 3, agreed on by a and c): no sign of life; no vCPU ran there and "
            "no page was held there alone: the domain goes on");
}

// Of hosts 0 and 2; what has to do with host 1, which is lost, does not count.
TEST(Loss, QuietIsWhenEverythingHasCome) {
  Json traffic{{"0", {{"idle", true}, {"sent", {0, 9, 5}}, {"received", {0, 7, 4}}}},
               {"2", {{"idle", true}, {"sent", {4, 8, 0}}, {"received", {5, 6, 0}}}}};
  EXPECT_TRUE(is_quiet(traffic));
  traffic["2"]["sent"][0] = 5;
  EXPECT_FALSE(is_quiet(traffic)) << "one is under way to 0";
  traffic["0"]["received"][2] = 5;
  EXPECT_TRUE(is_quiet(traffic));
  traffic["0"]["sent"][2] = 6;
  EXPECT_FALSE(is_quiet(traffic)) << "one is under way to 2";
  traffic["2"]["received"][0] = 6;
  traffic["2"]["idle"] = false;
  EXPECT_FALSE(is_quiet(traffic)) << "one waits at 2";
  traffic["2"] = Json{{"idle", true}, {"sent", {5}}};
  EXPECT_FALSE(is_quiet(traffic)) << "2 does not tell what it received";
  traffic["2"] = 3;
  EXPECT_FALSE(is_quiet(traffic));
}

}  // namespace
}  // namespace xenspan::daemon
