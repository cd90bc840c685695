// The litmus program's table against a model of x86-TSO, its count of what was seen, and that it
// sees what this machine does.
#include <gtest/gtest.h>

#include <set>

#include "tests/litmus/bodies.h"
#include "tests/litmus/run.h"
#include "tests/litmus/tso_model.h"

namespace xenspan::litmus {
namespace {

Ending ending_of(const Shape& shape, const Outcome& outcome) {
  Ending ending;
  for (unsigned i = 0; i < shape.registers; ++i)
    ending.registers[i] = static_cast<std::uint8_t>(outcome[i] - '0');
  unsigned at = shape.registers;
  for (unsigned variable = 0; variable < shape.variables; ++variable) {
    ending.last[variable] = shape.last[variable]
                                ? static_cast<std::uint8_t>(outcome[at++] - '0')
                                : static_cast<std::uint8_t>(only_value(shape, variable));
  }
  return ending;
}

TEST(LitmusTable, IsWhatTheModelAllows) {
  for (const Shape& shape : shapes()) {
    for (const Variant variant : kVariants) {
      std::set<Outcome> allowed;
      for (const Outcome& outcome : conceivable_outcomes(shape)) {
        if (is_allowed(shape, variant, outcome)) allowed.insert(outcome);
      }
      EXPECT_EQ(allowed, model_outcomes(shape, variant)) << shape.name << ' ' << name_of(variant);
    }
  }
}

TEST(LitmusTable, StoreBuffersAreAllThatSetsX86ApartFromOneOrder) {
  for (const Shape& shape : shapes()) {
    std::set<Outcome> relaxed = model_outcomes(shape, Variant::kPlain);
    for (const Outcome& outcome : model_outcomes(shape, Variant::kPlain, true)) {
      EXPECT_EQ(relaxed.erase(outcome), 1u) << shape.name << ' ' << outcome;
    }
    for (const Outcome& outcome : conceivable_outcomes(shape)) {
      EXPECT_EQ(relaxed.count(outcome) == 1, is_store_buffering(shape, Variant::kPlain, outcome))
          << shape.name << ' ' << outcome;
    }
  }
}

TEST(LitmusTable, EveryShapeForbidsSomethingWhenFenced) {
  for (const Shape& shape : shapes()) {
    unsigned forbidden = 0;
    for (const Outcome& outcome : conceivable_outcomes(shape)) {
      EXPECT_EQ(outcome.size(), outcome_size(shape));
      forbidden += !is_allowed(shape, Variant::kFenced, outcome);
    }
    EXPECT_GT(forbidden, 0u) << shape.name;
  }
}

TEST(LitmusTally, TellsAllowedFromForbidden) {
  for (const Shape& shape : shapes()) {
    for (const Variant variant : kVariants) {
      const std::set<Outcome> possible = model_outcomes(shape, variant);
      for (const Outcome& outcome : conceivable_outcomes(shape)) {
        Tally tally(shape, variant);
        tally.add(ending_of(shape, outcome));
        EXPECT_EQ(tally.forbidden(), possible.contains(outcome) ? 0u : 1u)
            << shape.name << ' ' << name_of(variant) << ' ' << outcome;
        EXPECT_EQ(tally.text().find("SEEN") != std::string::npos, tally.forbidden() == 1);
      }
    }
  }
}

TEST(LitmusTally, CountsTheStoreBuffersOutcome) {
  const Shape& shape = *find_shape("SB");
  Tally plain(shape, Variant::kPlain), fenced(shape, Variant::kFenced);
  for (Tally* tally : {&plain, &fenced}) {
    tally->add(ending_of(shape, "00"));
    tally->add(ending_of(shape, "11"));
  }
  EXPECT_EQ(plain.store_buffering(), 1u);
  EXPECT_EQ(plain.text(), "0,0 1 (store buffer), 1,1 1; forbidden 0");
  EXPECT_EQ(fenced.store_buffering(), 0u);
  EXPECT_EQ(fenced.text(), "1,1 1; forbidden 1: SEEN 0,0 1");
}

TEST(LitmusTally, AValueOfAnotherRoundIsForbidden) {
  const Shape& shape = *find_shape("MP");
  Ending ending = ending_of(shape, "01");
  ending.registers[1] = kStrange;
  Tally tally(shape, Variant::kPlain);
  tally.add(ending);
  EXPECT_EQ(tally.text(), "; forbidden 1: SEEN 0,? 1");
}

TEST(LitmusTally, AStoreThatIsNotThereAtTheEndIsForbidden) {
  const Shape& shape = *find_shape("MP");
  Ending ending = ending_of(shape, "00");
  ending.last[1] = 0;
  Tally tally(shape, Variant::kPlain);
  tally.add(ending);
  EXPECT_EQ(tally.forbidden(), 1u);
  EXPECT_EQ(tally.text(), "; forbidden 1: SEEN 0,0,Y 1");
}

// The code that is made from the table, one thread after the other: a sequential execution ends as
// the model's does when it runs the threads one by one.
TEST(LitmusBodies, DoWhatTheTableSays) {
  constexpr std::uint64_t kBase = 400;
  for (std::size_t index = 0; index < shapes().size(); ++index) {
    const Shape& shape = shapes()[index];
    for (unsigned run = 0; run < 6; ++run) {
      const Variant variant = kVariants[run / 2];
      const bool gaps = run % 2 == 1;
      std::array<std::uint64_t, 2> cells{kBase, kBase};
      std::array<std::uint64_t, 2> expected{0, 0};
      for (unsigned thread = 0; thread < shape.threads; ++thread) {
        std::array<std::uint8_t, 2> seen{77, 77};
        body_of(index, thread, variant, gaps)({&cells[0], &cells[1], 1, 1, kBase, seen.data()});
        for (unsigned at = 0; at < 2; ++at) {
          const Op& op = shape.code[thread][at];
          if (op.kind == Op::Kind::kStore) expected[op.variable] = op.operand;
          EXPECT_EQ(seen[at], op.kind == Op::Kind::kLoad ? expected[op.variable] : 77)
              << shape.name << ' ' << name_of(variant);
        }
      }
      EXPECT_EQ(cells[0], kBase + expected[0]) << shape.name;
      EXPECT_EQ(cells[1], kBase + expected[1]) << shape.name;
    }
  }
}

TEST(LitmusRound, EachThreadWalksEveryInstanceOnceAndStaysInTheArena) {
  for (const Pages pages : {Pages::kOne, Pages::kTwo}) {
    for (const unsigned burst : {1u, 8u, 32u}) {
      const Layout layout(pages, burst);
      std::set<std::size_t> places;
      for (unsigned i = 0; i < kRoundInstances; ++i) {
        EXPECT_LT(layout.y_of(i), Layout::kArenaBytes);
        EXPECT_EQ(layout.x_of(i) / kPageBytes == layout.y_of(i) / kPageBytes, pages == Pages::kOne);
        places.insert(layout.x_of(i));
        places.insert(layout.y_of(i));
        if (i % burst != 0) {
          EXPECT_EQ(layout.x_of(i), layout.x_of(i - 1) + layout.stride());
        }
      }
      EXPECT_EQ(places.size(), 2 * kRoundInstances);
      for (unsigned round = 0; round < 6; ++round) {
        for (unsigned role = 0; role < kMaxThreads; ++role) {
          std::set<unsigned> bursts;
          for (unsigned step = 0; step < layout.bursts(); ++step)
            bursts.insert(layout.burst_at(step, role, round));
          EXPECT_EQ(bursts.size(), layout.bursts());
          EXPECT_LT(*bursts.rbegin(), layout.bursts());
        }
      }
    }
  }
}

TEST(LitmusRun, ThisMachineIsAnX86) {
  Settings settings;
  settings.iterations = 20000;
  settings.processors = 3;
  for (std::size_t index = 0; index < shapes().size(); ++index) {
    const Outcomes outcomes = run_shape(index, Variant::kPlain, settings);
    EXPECT_EQ(outcomes.tally.forbidden(), 0u) << outcomes.tally.text();
    EXPECT_EQ(outcomes.tally.total(), 20 * kRoundInstances);
    EXPECT_EQ(outcomes.workers, std::max(3u, shapes()[index].threads));
  }
}

}  // namespace
}  // namespace xenspan::litmus
