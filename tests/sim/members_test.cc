// Hosts come and go: small systems explored completely with slots that move, a host that joins and
// one that drains and leaves at any step; random schedules of larger ones; and deliberate errors,
// each of which has to be found. --seed N, --schedules N, --first N. Prints what it counted; ends
// with 1 and a trace when anything is violated.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "tests/sim/explorer.h"
#include "tests/sim/options.h"
#include "tests/sim/random_runs.h"

namespace {

using namespace xenspan::dsm::sim;

constexpr std::uint64_t kMostStates = 4'000'000;  // every case has to be complete
constexpr unsigned kThreads = 2;

Shape members(Shape shape) {
  shape.elastic = true;
  return shape;
}

// kinds 2: read, write; 3: discard too. managers: of page 0, 1.
const Shape kShapes[] = {
    members({.hosts = 2, .pages = 1, .ops = 2, .refaults = 0, .managers = {0}, .moves = 2}),
    members({.hosts = 2,
             .pages = 1,
             .ops = 2,
             .kinds = 2,
             .refaults = 0,
             .fine = true,
             .managers = {1},
             .moves = 2}),
    members({.hosts = 2,
             .pages = 2,
             .ops = 1,
             .refaults = 0,
             .managers = {0, 0},
             .one_slot = true,
             .moves = 2}),
    members({.hosts = 3, .pages = 1, .ops = 1, .refaults = 0, .managers = {1}, .moves = 1}),
    members({.hosts = 3,
             .pages = 1,
             .ops = 1,
             .kinds = 2,
             .refaults = 0,
             .crash = true,
             .managers = {1},
             .moves = 1}),
    members({.hosts = 2, .pages = 1, .ops = 2, .refaults = 0, .managers = {1}, .leaver = 1}),
    members({.hosts = 2,
             .pages = 1,
             .ops = 2,
             .kinds = 2,
             .refaults = 0,
             .fine = true,
             .repeats = true,
             .managers = {1},
             .leaver = 1}),
    members({.hosts = 2,
             .pages = 2,
             .ops = 1,
             .refaults = 0,
             .managers = {1, 1},
             .one_slot = true,
             .leaver = 1}),
    members({.hosts = 3,
             .pages = 1,
             .ops = 1,
             .kinds = 2,
             .refaults = 0,
             .managers = {1},
             .leaver = 1,
             .heir = 2}),
    members({.hosts = 3,
             .pages = 1,
             .ops = 1,
             .kinds = 2,
             .refaults = 0,
             .managers = {2},
             .moves = 1,
             .leaver = 1}),
    members({.hosts = 3,
             .pages = 1,
             .ops = 1,
             .kinds = 2,
             .refaults = 0,
             .managers = {0},
             .moves = 1,
             .joiner = 2}),
    members({.hosts = 3,
             .pages = 1,
             .ops = 1,
             .kinds = 2,
             .refaults = 0,
             .crash = true,
             .managers = {1},
             .leaver = 1,
             .heir = 2}),
    members({.hosts = 3,
             .pages = 1,
             .ops = 1,
             .kinds = 2,
             .refaults = 0,
             .managers = {1},
             .joiner = 2,
             .leaver = 1}),
};

// The home drains and leaves. Not only pages that its guest has touched: ops 1 leave some to
// others.
const Shape kHomeShapes[] = {
    members(
        {.hosts = 2, .pages = 1, .ops = 2, .refaults = 0, .managers = {0}, .leaver = 0, .heir = 1}),
    members(
        {.hosts = 2, .pages = 1, .ops = 2, .refaults = 0, .managers = {1}, .leaver = 0, .heir = 1}),
    members({.hosts = 2,
             .pages = 1,
             .ops = 2,
             .kinds = 2,
             .refaults = 0,
             .fine = true,
             .repeats = true,
             .managers = {1},
             .leaver = 0,
             .heir = 1}),
    members({.hosts = 2,
             .pages = 2,
             .ops = 1,
             .refaults = 0,
             .managers = {0, 1},
             .leaver = 0,
             .heir = 1}),
    members(
        {.hosts = 3, .pages = 1, .ops = 1, .refaults = 0, .managers = {1}, .leaver = 0, .heir = 2}),
    members({.hosts = 2,
             .pages = 1,
             .ops = 1,
             .kinds = 2,
             .refaults = 0,
             .managers = {1},
             .moves = 1,
             .leaver = 0,
             .heir = 1}),
    members({.hosts = 2,
             .pages = 1,
             .ops = 2,
             .kinds = 2,
             .refaults = 0,
             .crash = true,
             .managers = {0},
             .leaver = 0,
             .heir = 1}),
};

// A host dies, at any step of anything, and the others go on.
Shape survive(Shape shape) {
  shape.elastic = shape.crash = shape.survive = true;
  shape.refaults = 0;
  shape.victim = static_cast<xenspan::dsm::HostId>(shape.hosts - 1);
  return shape;
}
const Shape kRebuildShapes[] = {
    survive({.hosts = 2, .pages = 1, .ops = 2, .managers = {1}}),
    survive({.hosts = 2, .pages = 1, .ops = 2, .kinds = 2, .fine = true, .managers = {1}}),
    survive({.hosts = 3, .pages = 1, .ops = 2, .managers = {2}, .idle = true}),
    survive({.hosts = 3, .pages = 1, .ops = 1, .managers = {2}}),
    survive({.hosts = 3, .pages = 1, .ops = 1, .managers = {1}}),
    survive({.hosts = 3, .pages = 1, .ops = 1, .fine = true, .managers = {2}, .idle = true}),
    survive(
        {.hosts = 3, .pages = 1, .ops = 1, .kinds = 2, .managers = {2}, .moves = 1, .idle = true}),
    survive({.hosts = 4, .pages = 1, .ops = 1, .managers = {3}, .idle = true}),
    survive({.hosts = 3, .pages = 2, .ops = 1, .managers = {2, 2}, .one_slot = true, .idle = true}),
};

unsigned long long number(std::uint64_t value) { return value; }

std::string in_words(const Shape& shape) {
  std::string what = std::to_string(shape.hosts) + " hosts x " + std::to_string(shape.pages) +
                     " pages x " + std::to_string(shape.ops) + " ops";
  if (shape.one_slot) what += " in one slot";
  if (shape.moves != 0) what += ", " + std::to_string(shape.moves) + " moves";
  if (shape.joiner >= 0) what += ", one joins";
  if (shape.leaver >= 0) what += shape.leaver == shape.home ? ", the home leaves" : ", one leaves";
  if (shape.fine) what += ", step by step";
  if (shape.crash) what += ", a host may die at any moment";
  if (shape.survive) what += shape.idle ? ", which only manages" : ", and the others go on";
  return what;
}

bool explore_all(std::span<const Shape> shapes) {
  std::atomic<std::size_t> next{0};
  std::atomic<std::uint64_t> states{0};
  std::atomic<bool> good{true};
  const auto work = [&] {
    for (std::size_t i; (i = next++) < shapes.size();) {
      const Exploration found = explore(shapes[i], kMostStates);
      states += found.states;
      std::printf(
          "members: %s: %llu states, %llu transitions, %llu ends, %llu stopped, %s\n%s%s%s",
          in_words(shapes[i]).c_str(), number(found.states), number(found.transitions),
          number(found.ends), number(found.stopped), found.complete ? "complete" : "INCOMPLETE",
          found.violation.empty() ? "" : "violated: ",
          found.violation.empty() ? "" : (found.violation + "\n").c_str(), found.trace.c_str());
      std::fflush(stdout);
      if (!found.violation.empty() || !found.complete || found.ends == 0) good = false;
      if (shapes[i].idle && found.stopped != 0) good = false;
    }
  };
  std::vector<std::jthread> threads;
  for (unsigned i = 0; i < kThreads; ++i) threads.emplace_back(work);
  threads.clear();
  std::printf("members: %llu states in all\n", number(states));
  return good;
}

bool run_schedules(const RandomOptions& options) {
  const RandomResult all = run_random_in(kThreads, options);
  std::printf(
      "members: seed %llu%s: %llu schedules, %llu stopped, %llu events, %llu accesses, %llu "
      "repeated\n",
      number(options.seed), options.losses ? ", a host dies" : "", number(all.schedules),
      number(all.stopped), number(all.events), number(all.accesses), number(all.repeated));
  if (all.violation.empty()) return true;
  std::printf("violated: %s\nagain: members_test --seed %llu --first %llu --schedules 1%s\n%s",
              all.violation.c_str(), number(options.seed), number(all.violated_at),
              options.losses ? " --losses 1" : "", all.trace.c_str());
  return false;
}

bool finds(Mutation mutation, std::span<const Shape> shapes) {
  const bool losses = shapes.front().survive;
  std::string by_explorer;
  for (Shape shape : shapes) {
    shape.mutation = mutation;
    const Exploration found = explore(shape, 300'000);
    if (found.violation.empty()) continue;
    by_explorer = in_words(shape) + ": " + found.violation;
    break;
  }
  const RandomResult random = run_random(
      {.seed = 7, .schedules = 20'000, .members = true, .losses = losses, .mutation = mutation});
  std::printf("mutation %s: explorer, %s; random, %s\n", name_of(mutation),
              by_explorer.empty() ? "SURVIVED" : by_explorer.c_str(),
              random.violation.empty() ? "SURVIVED" : random.violation.c_str());
  std::fflush(stdout);
  return !by_explorer.empty() && !random.violation.empty();
}

}  // namespace

int main(int argc, char** argv) {
  RandomOptions options{.schedules = 100'000, .members = true};
  bool all = true, losses_alone = false;
  const auto take = [&](std::string_view name, std::uint64_t value) {
    if (name == "--seed") {
      options.seed = value;
    } else if (name == "--schedules") {
      options.schedules = value;
    } else if (name == "--first") {
      options.first = value;
      all = false;
    } else if (name == "--losses") {
      losses_alone = value != 0;
    } else {
      return false;
    }
    return true;
  };
  if (!xenspan::sim::read_options(argc, argv, take)) {
    std::fprintf(stderr,
                 "usage: members_test [--seed N] [--schedules N] [--first N] [--losses 1]\n");
    return 2;
  }
  bool good = losses_alone || run_schedules(options);
  options.losses = true;
  if (!losses_alone) options.schedules /= 4;
  good = run_schedules(options) && good;
  if (all) {
    good = explore_all(kShapes) && good;
    good = explore_all(kHomeShapes) && good;
    good = explore_all(kRebuildShapes) && good;
    for (Mutation mutation : kMemberMutations) good = finds(mutation, kShapes) && good;
    for (Mutation mutation : kHomeMutations) good = finds(mutation, kHomeShapes) && good;
    for (Mutation mutation : kRebuildMutations) good = finds(mutation, kRebuildShapes) && good;
  }
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
