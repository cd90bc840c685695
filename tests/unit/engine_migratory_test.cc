#include <gtest/gtest.h>

#include "dsm-rdma/migratory.h"

namespace xenspan::dsm {
namespace {

constexpr std::uint64_t kSoon = 5'000, kLate = 1'000'000;  // ns

class Migratory : public testing::Test {
 protected:
  void turn(Gfn gfn, std::uint64_t gap) {
    now_ += 100'000;
    pages_.on_read(gfn, now_);
    pages_.on_upgrade(gfn, now_ + gap);
    pages_.on_lost(gfn);
  }
  unsigned asked(Gfn gfn, unsigned times) {
    unsigned exclusive = 0;
    for (unsigned i = 0; i < times; ++i) exclusive += pages_.wants_exclusive(gfn);
    return exclusive;
  }
  MigratoryPages pages_;
  std::uint64_t now_ = 0;
};

TEST_F(Migratory, TwoUpgradesAtOnceMakeAPageMigratory) {
  turn(5, kSoon);
  EXPECT_EQ(asked(5, 8), 0u);
  turn(5, kSoon);
  EXPECT_EQ(asked(5, 16), 14u) << "one in eight looks again";
  EXPECT_EQ(asked(6, 8), 0u);
}

TEST_F(Migratory, AnUpgradeMuchLaterDoesNot) {
  for (int i = 0; i < 4; ++i) turn(5, kLate);
  EXPECT_EQ(asked(5, 8), 0u);
}

TEST_F(Migratory, AReadThatIsNotFollowedByAWriteEndsIt) {
  turn(5, kSoon);
  turn(5, kSoon);
  ASSERT_GT(asked(5, 8), 0u);
  pages_.on_read(5, now_);
  pages_.on_lost(5);
  EXPECT_EQ(asked(5, 8), 0u);
}

TEST_F(Migratory, APageThatMeetsAnotherInTheTableStartsAgain) {
  turn(5, kSoon);
  turn(5, kSoon);
  for (Gfn other = 1000; other < 1'000'000; ++other) pages_.on_read(other, now_);
  EXPECT_EQ(asked(5, 8), 0u);
}

}  // namespace
}  // namespace xenspan::dsm
