// The predictor against programs that touch pages in order: how many faults they have left, and
// what is asked for in vain.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "dsm-rdma/prefetch.h"

namespace xenspan::dsm {
namespace {

constexpr std::uint64_t kMicrosecond = 1000;
constexpr Ask read_of(Gfn gfn) { return {gfn, Right::kShared}; }
constexpr Ask write_of(Gfn gfn) { return {gfn, Right::kExclusive}; }

// A host's rights, one or more threads, and what the predictor makes of their faults.
class Program {
 public:
  explicit Program(unsigned most = Predictor::kMostRun)
      : predictor_(std::make_unique<Predictor>(most, 256)) {}

  // One access; a fault when the right is not held.
  void touch(Ask ask, std::uint64_t thread = 1, std::uint64_t site = 0) {
    now_ns_ += kMicrosecond;
    const auto start = [](void* self, Ask early, bool sampled) {
      return static_cast<Program*>(self)->start(early, sampled);
    };
    if (unmapped.erase(ask.gfn) != 0) {
      predictor_->on_touched(ask.gfn);
      if (ahead) predictor_->on_marker(thread, ask.gfn, start, this);
    }
    wasted.erase(ask.gfn);
    if (held[ask.gfn] >= ask.right) return;
    ++faults;
    held[ask.gfn] = ask.right;
    last_run = predictor_->on_fault(thread, ask, site, now_ns_, start, this);
    if (ahead) last_run += predictor_->on_marker(thread, ask.gfn, start, this);
    now_ns_ += 50 * kMicrosecond;
    predictor_->on_served(thread, now_ns_);
  }
  // Other hosts take the pages away.
  void lose(Gfn gfn) {
    held.erase(gfn);
    unmapped.erase(gfn);
    predictor_->on_lost(gfn);
  }
  void lose_all() {
    while (!held.empty()) lose(held.begin()->first);
  }
  void pause() { now_ns_ += 5000 * kMicrosecond; }
  void contend(Gfn gfn) { predictor_->on_contention(gfn, now_ns_); }

  std::map<Gfn, Right> held;
  std::set<Gfn> unmapped, wasted;  // samples; asked for early and not touched yet
  Gfn end = ~Gfn{0};               // no page from here on may be asked for
  bool ahead = false;              // requests that no thread waits for, too
  unsigned faults = 0, early = 0, samples = 0, last_run = 0;

 private:
  Predictor::Start start(Ask ask, bool sampled) {
    if (ask.gfn >= end) return Predictor::Start::kRefused;
    if (held[ask.gfn] >= ask.right) return Predictor::Start::kHeld;
    held[ask.gfn] = ask.right;
    wasted.insert(ask.gfn);
    ++early;
    if (sampled) {
      ++samples;
      unmapped.insert(ask.gfn);
    }
    return Predictor::Start::kStarted;
  }

  const std::unique_ptr<Predictor> predictor_;
  std::uint64_t now_ns_ = kMicrosecond;
};

TEST(Prefetch, AWalkNeedsOneFaultForSixteenPages) {
  Program program;
  for (Gfn gfn = 1000; gfn < 2000; ++gfn) program.touch(read_of(gfn));
  EXPECT_LE(program.faults, 1000u / 16 + 6);
  EXPECT_LE(program.wasted.size(), Predictor::kMostRun);
}

TEST(Prefetch, AStrideAndAWayBackAreStreamsToo) {
  Program forth, back;
  for (Gfn gfn = 5000; gfn < 8000; gfn += 3) forth.touch(write_of(gfn));
  for (Gfn gfn = 5000; gfn > 4000; --gfn) back.touch(read_of(gfn));
  EXPECT_LE(forth.faults, 1000u / 16 + 7);
  EXPECT_LE(back.faults, 1000u / 16 + 6);
  EXPECT_LE(forth.wasted.size() + back.wasted.size(), 2 * Predictor::kMostRun);
}

TEST(Prefetch, SeveralStreamsOfOneThreadDoNotDisturbEachOther) {
  Program program;
  for (Gfn i = 0; i < 400; ++i) {
    program.touch(read_of(10'000 + i));
    program.touch(write_of(20'000 + i));
    program.touch(read_of(30'000 + i));
  }
  EXPECT_LE(program.faults, 3 * (400u / 16 + 8));
}

TEST(Prefetch, RunsGrowFromOneAndEndWhereThereIsNothingToAskFor) {
  Program program;
  program.end = 110;
  std::vector<unsigned> runs;
  for (Gfn gfn = 100; gfn < 110; ++gfn) {
    const unsigned before = program.faults;
    program.touch(read_of(gfn));
    if (program.faults != before) runs.push_back(program.last_run);
  }
  EXPECT_EQ(runs, (std::vector<unsigned>{0, 1, 2, 3}));  // the fourth run would be of four
  EXPECT_TRUE(program.wasted.empty());
}

TEST(Prefetch, ScatteredFaultsAskForLittle) {
  Program program;
  std::mt19937 random(7);
  for (unsigned i = 0; i < 4000; ++i) program.touch(read_of(random() % 1'000'000));
  EXPECT_LE(program.early, 20u);
}

// Reads of a neighbour's row and upgrades of the own one, over and over.
void sweep(Program& program) {
  for (Gfn i = 0; i < 5; ++i) program.touch(read_of(500 + i));
  for (Gfn i = 0; i < 5; ++i) program.touch(write_of(300 + i));
  program.pause();
}

TEST(Prefetch, ABurstThatComesAgainIsOneFault) {
  Program program;
  for (unsigned i = 0; i < 30; ++i) {
    sweep(program);
    program.lose_all();
  }
  const unsigned learned = program.faults;
  program.wasted.clear();
  for (unsigned i = 0; i < 100; ++i) {
    sweep(program);
    program.lose_all();
  }
  EXPECT_TRUE(program.wasted.empty());
  EXPECT_EQ(program.faults - learned, 100u);
  EXPECT_LE(learned, 150u);
}

// Each step of a simulation reads what other hosts have written, and writes its own part.
TEST(Prefetch, AWalkThatComesAgainNeedsOneFault) {
  Program program;
  program.ahead = true;
  const auto step = [&] {
    for (Gfn i = 0; i < 48; ++i) program.touch(read_of(1000 + i));
    program.pause();
    for (Gfn i = 0; i < 40; ++i) program.touch(write_of(2000 + i));
    program.pause();
    program.lose_all();
  };
  for (unsigned i = 0; i < 5; ++i) step();
  const unsigned learned = program.faults;
  program.wasted.clear();
  for (unsigned i = 0; i < 10; ++i) step();
  EXPECT_EQ(program.faults - learned, 2 * 10u);
  EXPECT_TRUE(program.wasted.empty());
}

TEST(Prefetch, AWalkThatGetsShorterIsFollowedNoFurther) {
  Program program;
  program.ahead = true;
  const auto walk = [&](Gfn pages) {
    for (Gfn i = 0; i < pages; ++i) program.touch(read_of(1000 + i));
    program.pause();
    program.lose_all();
  };
  for (unsigned i = 0; i < 6; ++i) walk(100);
  for (unsigned i = 0; i < 40; ++i) walk(50);
  program.wasted.clear();
  const unsigned early = program.early, faults = program.faults;
  for (unsigned i = 0; i < 10; ++i) walk(50);
  EXPECT_LE(program.wasted.size(), 8u);
  EXPECT_LE(program.early - early, 10 * 57u);
  EXPECT_LE(program.faults - faults, 10 * 3u);
}

TEST(Prefetch, PagesInDisorderAreNoWalk) {
  Program program;
  program.ahead = true;
  std::vector<Gfn> pages(64);
  for (Gfn i = 0; i < 64; ++i) pages[i] = 1000 + 3 * i;
  std::mt19937 random(11);
  for (unsigned i = 0; i < 200; ++i) {
    std::shuffle(pages.begin(), pages.end(), random);
    for (unsigned k = 0; k < 20; ++k) {
      program.touch(read_of(pages[k]));
      program.pause();
    }
    program.lose_all();
  }
  EXPECT_LE(program.early, program.faults / 4);
}

// The same pages in another order each time: no fault follows on another for sure.
TEST(Prefetch, ABurstMayComeInAnyOrder) {
  Program program;
  std::vector<Ask> burst;
  for (Gfn i = 0; i < 5; ++i) {
    burst.push_back(read_of(500 + 2 * i * i));
    burst.push_back(write_of(3000 - 3 * i * i));
  }
  std::mt19937 random(7);
  const auto run = [&] {
    std::shuffle(burst.begin(), burst.end(), random);
    for (const Ask& ask : burst) program.touch(ask);
    program.pause();
    program.lose_all();
  };
  for (unsigned i = 0; i < 30; ++i) run();
  const unsigned learned = program.faults;
  program.wasted.clear();
  for (unsigned i = 0; i < 100; ++i) run();
  EXPECT_TRUE(program.wasted.empty());
  EXPECT_EQ(program.faults - learned, 100u);
}

// A page that is lost and wanted again within one burst: a barrier, a lock. It neither brings the
// others nor comes with them.
TEST(Prefetch, APageThatIsFoughtForIsNoPartOfABurst) {
  Program program;
  const auto run = [&] {
    program.touch(write_of(77));
    for (Gfn i = 0; i < 5; ++i) program.touch(read_of(500 + 2 * i));
    program.lose(77);
    program.touch(write_of(77));
    program.pause();
    program.lose_all();
  };
  for (unsigned i = 0; i < 30; ++i) run();
  program.wasted.clear();
  program.touch(write_of(77));
  EXPECT_EQ(program.last_run, 0u);
  program.touch(read_of(500));
  EXPECT_EQ(program.last_run, 4u);
  EXPECT_FALSE(program.wasted.contains(77));
}

// A barrier: its page is touched on arrival and again when all have come; then the thread goes on
// to what another one has written meanwhile.
class Barrier : public ::testing::Test {
 protected:
  void phase() {
    arrive();
    for (Gfn i = 0; i < 5; ++i) program.lose(500 + 2 * i);
    wait();
    if (go_on) {
      for (Gfn i = 0; i < 5; ++i) program.touch(read_of(500 + 2 * i));
    }
    program.pause();
  }
  // Another host has come before, and one comes after.
  void arrive() {
    program.lose(77);
    program.touch(read_of(77), 1, kArrive);
    program.lose(77);
    program.contend(77);
  }
  void wait() { program.touch(read_of(77), 1, kWait); }
  void learn() {
    for (unsigned i = 0; i < 30; ++i) phase();
  }
  static constexpr std::uint64_t kArrive = 0x401000, kWait = 0x402000;
  Program program;
  bool go_on = true;
};

TEST_F(Barrier, WhatIsWantedBehindItComesWithIt) {
  learn();
  program.wasted.clear();
  const unsigned before = program.faults;
  for (unsigned i = 0; i < 100; ++i) phase();
  EXPECT_EQ(program.faults - before, 200u);
  EXPECT_TRUE(program.wasted.empty());
}

TEST_F(Barrier, WhatIsNotWantedAnyMoreIsNotAskedForLong) {
  learn();
  go_on = false;
  for (unsigned i = 0; i < 30; ++i) phase();
  const unsigned before = program.early;
  for (unsigned i = 0; i < 100; ++i) phase();
  EXPECT_EQ(program.early, before);
}

TEST_F(Barrier, WhatIsLostBeforeItIsUsedIsNotAskedForWithItAgain) {
  learn();
  const auto come_too_soon = [&] {
    arrive();
    for (Gfn i = 0; i < 5; ++i) program.lose(500 + 2 * i);
    wait();
    for (Gfn i = 0; i < 5; ++i) program.lose(500 + 2 * i);
    program.touch(read_of(500));
    program.pause();
  };
  come_too_soon();
  arrive();
  for (Gfn i = 0; i < 5; ++i) program.lose(500 + 2 * i);
  wait();
  EXPECT_EQ(program.last_run, 0u);
}

// Who comes last does not wait.
TEST_F(Barrier, ThePlaceInTheProgramDecides) {
  learn();
  arrive();
  EXPECT_EQ(program.last_run, 0u);
  for (Gfn i = 0; i < 5; ++i) program.lose(500 + 2 * i);
  wait();
  EXPECT_EQ(program.last_run, 5u);
}

TEST(Bursts, WhatIsWrittenInOneOfManyIsAskedForToBeWritten) {
  Bursts bursts;
  const auto burst = [&](Right right) {
    bursts.on_asked(read_of(1), true);
    bursts.on_asked(read_of(2), false);
    bursts.on_asked({2, right}, false);
  };
  for (int i = 0; i < 4; ++i) burst(Right::kExclusive);
  EXPECT_EQ(bursts.right(2), Right::kExclusive);
  EXPECT_EQ(bursts.right(1), Right::kShared);
  EXPECT_EQ(bursts.size(1), 1u);
  EXPECT_EQ(bursts.size(3), 0u);
}

TEST(Prefetch, WhatIsAskedForInVainIsForgotten) {
  Program program;
  for (unsigned i = 0; i < 30; ++i) {
    sweep(program);
    program.lose_all();
  }
  // From now on the first page alone is touched.
  for (unsigned i = 0; i < 100; ++i) {
    program.touch(read_of(500));
    program.pause();
    program.lose_all();
  }
  const unsigned before = program.early;
  for (unsigned i = 0; i < 100; ++i) {
    program.touch(read_of(500));
    program.pause();
    program.lose_all();
  }
  EXPECT_EQ(program.early, before);
}

TEST(Prefetch, APageInContentionIsNotAskedForEarly) {
  Program program;
  for (unsigned i = 0; i < 30; ++i) {
    sweep(program);
    program.lose_all();
  }
  program.contend(302);
  program.contend(302);
  program.wasted.clear();
  program.touch(read_of(500));
  EXPECT_GT(program.last_run, 5u);
  EXPECT_FALSE(program.wasted.contains(302));
  EXPECT_TRUE(program.wasted.contains(303));
}

TEST(Prefetch, AFaultThatIsRepeatedComesAlone) {
  Program program;
  for (Gfn gfn = 0; gfn < 4; ++gfn) program.touch(read_of(gfn));
  program.lose_all();
  program.touch(read_of(100));
  program.touch(read_of(101));
  EXPECT_EQ(program.last_run, 1u);
  program.lose(101);
  program.touch(read_of(101));
  EXPECT_EQ(program.last_run, 0u);
}

TEST(Prefetch, ThreadsAreToldApart) {
  Program program;
  for (Gfn i = 0; i < 100; ++i) {  // neighbours, but of two threads
    program.touch(read_of(2 * i), 0x1000);
    program.touch(read_of(1'000'000 - 2 * i), 0x2000);
  }
  EXPECT_TRUE(program.held.contains(200));
  EXPECT_FALSE(program.held.contains(201));
}

TEST(Prefetch, SwitchedOffItAsksForNothing) {
  Program program(0);
  for (Gfn gfn = 0; gfn < 100; ++gfn) program.touch(read_of(gfn));
  EXPECT_EQ(program.faults, 100u);
  EXPECT_EQ(program.early, 0u);
}

TEST(Prefetch, SamplesAreAFewOfAll) {
  Program program;
  for (Gfn gfn = 0; gfn < 20'000; ++gfn) program.touch(read_of(gfn));
  EXPECT_GT(program.samples, program.early / 200);
  EXPECT_LT(program.samples, program.early / 20);
}

// Where the wire has room for it, runs ahead become longer with each marker that is touched.
TEST(RunsAhead, AreLongerTheLongerTheStreamGoesOn) {
  struct {
    unsigned room, shortest, longest;
  } constexpr kWires[] = {{64, 16, 16}, {256, 64, 80}, {896, 64, 256}};
  for (const auto& [room, shortest, longest] : kWires) {
    const auto predictor = std::make_unique<Predictor>(Predictor::kMostRun, room);
    struct Asked {
      std::deque<Gfn> markers;
      std::vector<unsigned> runs;
    } asked;
    const auto start = [](void* opaque, Ask ask, bool marker) {
      auto& all = *static_cast<Asked*>(opaque);
      if (marker) {
        all.markers.push_back(ask.gfn);
        all.runs.push_back(0);
      }
      ++all.runs.back();
      return Predictor::Start::kStarted;
    };
    const auto early = [](void* opaque, Ask, bool) {
      ++*static_cast<unsigned*>(opaque);
      return Predictor::Start::kStarted;
    };
    for (Gfn next = 100; asked.runs.empty();) {
      unsigned run = 0;
      (void)predictor->on_fault(1, read_of(next), 0, kMicrosecond, early, &run);
      (void)predictor->on_marker(1, next, start, &asked);
      next += 1 + run;
    }
    for (int touched = 0; touched < 10; ++touched) {
      const Gfn marker = asked.markers.front();
      asked.markers.pop_front();
      (void)predictor->on_marker(1, marker, start, &asked);
    }
    EXPECT_EQ(asked.runs.front(), shortest);
    EXPECT_EQ(asked.runs.back(), longest);
    EXPECT_TRUE(std::is_sorted(asked.runs.begin(), asked.runs.end()));
    // All that may be under way has room.
    EXPECT_LE(asked.markers.size() * longest, room);
  }
}

// A stream at full length runs ahead: each marker that is touched brings the next run, and nothing
// else does.
TEST(RunsAhead, WhereItsMarkersAreTouched) {
  const auto predictor = std::make_unique<Predictor>(Predictor::kMostRun, 256);
  struct Asked {
    std::vector<Gfn> pages;
    std::vector<Gfn> markers;
    Gfn end = ~Gfn{0};
  } asked;
  const auto start = [](void* opaque, Ask ask, bool marker) {
    auto& all = *static_cast<Asked*>(opaque);
    if (ask.gfn >= all.end) return Predictor::Start::kRefused;
    all.pages.push_back(ask.gfn);
    if (marker) all.markers.push_back(ask.gfn);
    return Predictor::Start::kStarted;
  };
  const auto early = [](void* opaque, Ask ask, bool) {
    static_cast<std::vector<Gfn>*>(opaque)->push_back(ask.gfn);
    return Predictor::Start::kStarted;
  };
  std::uint64_t now = 1'000'000;
  Gfn next = 100;
  unsigned faults = 0;
  while (asked.pages.empty()) {
    ASSERT_LT(++faults, 20u);
    std::vector<Gfn> run;
    now += kMicrosecond;
    (void)predictor->on_fault(1, read_of(next), 0, now, early, &run);
    (void)predictor->on_marker(1, next, start, &asked);
    next += 1 + run.size();
  }
  // From here on without a fault: each marker lets one run more be under way than before, to a
  // bound, and runs follow one another without a gap.
  std::deque<Gfn> markers;
  Gfn asked_to = next;
  std::size_t most_under_way = 0;
  for (int runs = 0; runs < 20; ++runs) {
    for (Gfn page : asked.pages) ASSERT_EQ(page, asked_to++);
    markers.insert(markers.end(), asked.markers.begin(), asked.markers.end());
    most_under_way = std::max(most_under_way, markers.size());
    ASSERT_LE(markers.size(), static_cast<std::size_t>(runs) + 1);
    const Gfn marker = markers.front();
    markers.pop_front();
    asked = {};
    EXPECT_EQ(predictor->on_marker(2, marker, start, &asked), 0u);  // another thread's stream
    EXPECT_EQ(predictor->on_marker(1, marker + 1, start, &asked), 0u);
    EXPECT_GT(predictor->on_marker(1, marker, start, &asked), 0u);
    EXPECT_LE(asked.markers.size(), 2u);
    std::vector<Gfn> second;
    EXPECT_EQ(predictor->on_marker(1, marker, early, &second), 0u);  // once
  }
  EXPECT_GT(most_under_way, 2u);
  EXPECT_LT(most_under_way, 10u);
  // One that is jumped over counts as touched.
  markers.insert(markers.end(), asked.markers.begin(), asked.markers.end());
  asked = {};
  const Gfn skipped = markers.front(), later = markers[2];
  EXPECT_GT(predictor->on_marker(1, later, start, &asked), 0u);
  EXPECT_EQ(asked.markers.size(), 3u);
  EXPECT_EQ(predictor->on_marker(1, skipped, start, &asked), 0u);
  // It ends where a page is refused.
  const Gfn marker = asked.markers.front();
  asked = {};
  asked.end = 0;
  EXPECT_EQ(predictor->on_marker(1, marker, start, &asked), 0u);
}

}  // namespace
}  // namespace xenspan::dsm
