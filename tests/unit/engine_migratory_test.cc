#include <gtest/gtest.h>

#include "dsm-rdma/migratory.h"

namespace xenspan::dsm {
namespace {

constexpr std::uint64_t kSoon = 5'000, kLate = 1'000'000;  // ns
constexpr std::uint64_t kHere = 0x401000, kThere = 0x402000;

class Migratory : public testing::Test {
 protected:
  void turn(Gfn gfn, std::uint64_t gap, std::uint64_t site = kHere, bool alone = false) {
    now_ += 100'000;
    pages_.on_read(gfn, site, now_);
    pages_.on_upgrade(gfn, now_ + gap, alone);
    pages_.on_lost(gfn);
  }
  // The same where one other host has the page.
  void late_turn(Gfn gfn) { turn(gfn, kLate, kHere, true); }
  void read_only(Gfn gfn, std::uint64_t site) {
    pages_.on_read(gfn, site, now_);
    pages_.on_lost(gfn);
  }
  unsigned asked(Gfn gfn, unsigned times, std::uint64_t site = kHere) {
    unsigned exclusive = 0;
    for (unsigned i = 0; i < times; ++i) exclusive += pages_.wants_exclusive(gfn, site);
    return exclusive;
  }
  MigratoryPages pages_;
  std::uint64_t now_ = 1'000'000;
};

TEST_F(Migratory, TwoUpgradesAtOnceMakeAPageMigratory) {
  turn(5, kSoon);
  EXPECT_EQ(asked(5, 8), 0u);
  turn(5, kSoon);
  EXPECT_EQ(asked(5, 14), 12u) << "one in seven looks again";
  EXPECT_EQ(asked(6, 8), 0u);
}

TEST_F(Migratory, OneMuchLaterCountsWhereOneHostHadThePage) {
  late_turn(5);
  late_turn(5);
  EXPECT_EQ(asked(5, 8), 0u);
  late_turn(5);
  EXPECT_EQ(asked(5, 14), 12u);
}

TEST_F(Migratory, WhatTheOtherHostReadsMeanwhileIsNotTakenForLong) {
  for (int i = 0; i < 3; ++i) late_turn(5);
  ASSERT_FALSE(pages_.wants_exclusive(5, kHere)) << "the one that looks again";
  ASSERT_TRUE(pages_.wants_exclusive(5, kHere));
  pages_.on_shared(5);
  EXPECT_EQ(asked(5, 8), 0u);
  pages_.on_shared(5);  // it is not asked twice
  late_turn(5);
  late_turn(5);
  EXPECT_EQ(asked(5, 14), 12u);
}

TEST_F(Migratory, WhatTheOtherHostWritesNextIsTakenAgain) {
  for (int i = 0; i < 3; ++i) late_turn(5);
  for (int i = 0; i < 100; ++i) {
    const bool taken = pages_.wants_exclusive(5, kHere);
    EXPECT_EQ(taken, i % 7 != 0);
    if (taken) pages_.on_lost(5);
    if (!taken) late_turn(5);
  }
}

TEST_F(Migratory, AnUpgradeMuchLaterDoesNot) {
  for (int i = 0; i < 4; ++i) turn(5, kLate);
  EXPECT_EQ(asked(5, 8), 0u);
}

TEST_F(Migratory, ThePlaceInTheProgramDecides) {
  for (int i = 0; i < 3; ++i) {
    turn(5, kSoon, kHere);
    read_only(5, kThere);
  }
  EXPECT_EQ(asked(5, 7, kHere), 6u);
  EXPECT_EQ(asked(5, 7, kThere), 0u);
}

TEST_F(Migratory, AReadThatIsNotFollowedByAWriteEndsIt) {
  turn(5, kSoon);
  turn(5, kSoon);
  ASSERT_GT(asked(5, 8), 0u);
  read_only(5, kHere);
  EXPECT_EQ(asked(5, 8), 0u);
}

TEST_F(Migratory, OneExceptionDoesNotEndALongHabit) {
  for (int i = 0; i < 8; ++i) turn(5, kSoon);
  read_only(5, kHere);
  EXPECT_GT(asked(5, 8), 0u);
  for (int i = 0; i < 3; ++i) read_only(5, kHere);
  EXPECT_EQ(asked(5, 8), 0u);
}

TEST_F(Migratory, EverySecondReadIsEnough) {
  for (int i = 0; i < 8; ++i) {
    turn(5, kSoon);
    read_only(5, kHere);
  }
  EXPECT_GT(asked(5, 8), 0u);
}

TEST_F(Migratory, EveryFourthIsNot) {
  for (int i = 0; i < 8; ++i) {
    turn(5, kSoon);
    for (int j = 0; j < 3; ++j) read_only(5, kHere);
  }
  EXPECT_EQ(asked(5, 8), 0u);
}

TEST_F(Migratory, APageThatMeetsOthersInTheTableStartsAgain) {
  turn(5, kSoon);
  turn(5, kSoon);
  for (Gfn other = 1000; other < 1'000'000; ++other) turn(other, kSoon);
  EXPECT_EQ(asked(5, 8), 0u);
}

}  // namespace
}  // namespace xenspan::dsm
