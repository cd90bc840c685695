// The checkers of sequential consistency against the classical small histories.
#include "tests/sim/history.h"

#include <gtest/gtest.h>

namespace xenspan::dsm::sim {
namespace {

constexpr unsigned kBudget = 10000;
constexpr std::uint8_t x = 0, y = 1;

Operation write(std::uint8_t thread, std::uint8_t page, Value value) {
  return {thread, page, true, value};
}
Operation read(std::uint8_t thread, std::uint8_t page, Value value) {
  return {thread, page, false, value};
}

void expect_both(const History& history, Judgement expected) {
  EXPECT_EQ(check_order_graph(history), expected);
  EXPECT_EQ(check_by_search(history, kBudget), expected);
}

TEST(History, EmptyIsConsistent) { expect_both({}, Judgement::kConsistent); }

TEST(History, BothSeeingOldValuesAfterWritingIsNot) {  // store buffering (Dekker)
  expect_both({write(0, x, 1), write(1, y, 2), read(0, y, 0), read(1, x, 0)},
              Judgement::kViolation);
  expect_both({write(0, x, 1), write(1, y, 2), read(0, y, 0), read(1, x, 1)},
              Judgement::kConsistent);
}

TEST(History, MessageBeforeItsDataIsNot) {
  expect_both({write(0, x, 1), write(0, y, 2), read(1, y, 2), read(1, x, 0)},
              Judgement::kViolation);
  expect_both({write(0, x, 1), write(0, y, 2), read(1, y, 0), read(1, x, 1)},
              Judgement::kConsistent);
}

TEST(History, TwoReadersThatDisagreeAboutOrderAreNot) {  // independent reads of independent writes
  expect_both(
      {write(0, x, 1), write(1, y, 2), read(2, x, 1), read(2, y, 0), read(3, y, 2), read(3, x, 0)},
      Judgement::kViolation);
}

TEST(History, AValueThatComesBackIsNot) {
  expect_both({write(0, x, 1), write(0, x, 2), read(1, x, 2), read(1, x, 1)},
              Judgement::kViolation);
}

TEST(History, AValueNobodyWroteIsNot) { expect_both({read(0, x, 7)}, Judgement::kViolation); }

TEST(History, ALateReadIsSequentiallyConsistentButNoWitness) {
  const History late = {write(0, x, 1), read(1, x, 0)};
  expect_both(late, Judgement::kConsistent);
  EXPECT_EQ(check_witness(late), Judgement::kViolation);
}

TEST(History, DiscardsAreJudgedBySearchOnly) {
  const History good = {write(0, x, 1), write(1, x, 0), read(0, x, 0)};
  EXPECT_EQ(check_order_graph(good), Judgement::kUndecided);
  EXPECT_EQ(check_by_search(good, kBudget), Judgement::kConsistent);
  const History bad = {write(0, x, 1), write(0, x, 0), read(0, x, 1)};
  EXPECT_EQ(check_by_search(bad, kBudget), Judgement::kViolation);
}

TEST(History, SearchSaysWhenItGaveUp) {
  History history;
  for (std::uint8_t thread = 0; thread < 8; ++thread) {
    for (Value i = 1; i < 5; ++i) history.push_back(write(thread, thread % 4, thread * 10u + i));
  }
  history.push_back(read(0, x, 99));
  EXPECT_EQ(check_by_search(history, 50), Judgement::kUndecided);
}

}  // namespace
}  // namespace xenspan::dsm::sim
