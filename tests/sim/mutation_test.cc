// Each deliberate error must be found by the explorer and by random schedules. Prints what found it
// and how soon; ends with 1 when one survives.
#include <cstdio>
#include <cstdlib>

#include "tests/sim/explorer.h"
#include "tests/sim/random_runs.h"

namespace {

using namespace xenspan::dsm::sim;

// Two hosts, and three where an error needs a bystander; steps apart, since some errors are only in
// their order.
const Shape kShapes[] = {
    {.hosts = 2, .pages = 1, .ops = 3, .fine = true, .managers = {0}},
    {.hosts = 3, .pages = 1, .ops = 2, .kinds = 2, .refaults = 0, .fine = true, .managers = {1}},
};

bool found_by_explorer(Mutation mutation, bool wide) {
  for (Shape shape : kShapes) {
    shape.mutation = mutation;
    shape.wide = wide;
    const Exploration found = explore(shape, 2'000'000);
    if (found.violation.empty()) continue;
    std::printf("mutation %s: explorer, %u hosts%s, %llu states: %s\n", name_of(mutation),
                shape.hosts, wide ? ", wide machine" : "",
                static_cast<unsigned long long>(found.states), found.violation.c_str());
    return true;
  }
  std::printf("mutation %s: SURVIVED the explorer%s\n", name_of(mutation),
              wide ? " with the wide machine" : "");
  return false;
}

bool found_by_random(Mutation mutation) {
  const RandomResult result = run_random({.seed = 7, .schedules = 20'000, .mutation = mutation});
  if (result.violation.empty()) {
    std::printf("mutation %s: SURVIVED %llu random schedules (%llu of them changed)\n",
                name_of(mutation), static_cast<unsigned long long>(result.schedules),
                static_cast<unsigned long long>(result.mutated));
    return false;
  }
  std::printf("mutation %s: random, schedule %llu, changed in %llu so far: %s\n", name_of(mutation),
              static_cast<unsigned long long>(result.violated_at),
              static_cast<unsigned long long>(result.mutated), result.violation.c_str());
  return true;
}

// Errors that also have to show in the history alone, where the checker knows nothing of rights,
// frames or the order of accesses: so are the real engine's runs judged. Not here are errors that
// stop the machine (a history has no gaps), and ack-before-withdraw and grant-before-acks: one
// stale read for a moment is sequentially consistent unless a second page gives it away just then,
// which random programs hardly ever do. The checks of every state find them at once.
constexpr Mutation kVisible[] = {
    Mutation::kDropInvalidation,   Mutation::kReaderForgotten,  Mutation::kPageBeforeWithdraw,
    Mutation::kOwnerStaysWritable, Mutation::kOwnerStaysMapped, Mutation::kDiscardKeepsContents,
};

bool found_by_history(Mutation mutation) {
  const RandomResult result =
      run_random({.seed = 7, .schedules = 20'000, .mutation = mutation, .history_alone = true});
  std::printf("mutation %s: history alone, %llu schedules: %s\n", name_of(mutation),
              static_cast<unsigned long long>(result.schedules),
              result.violation.empty() ? "SURVIVED" : result.violation.c_str());
  return !result.violation.empty();
}

// The same systems and seed without an error: otherwise the harness might cry wolf.
bool quiet_without_mutation() {
  bool quiet = run_random({.seed = 7, .schedules = 20'000}).violation.empty();
  for (const Shape& shape : kShapes) quiet = quiet && explore(shape, 2'000'000).violation.empty();
  std::printf("mutation none: %s\n", quiet ? "nothing found" : "VIOLATION");
  return quiet;
}

}  // namespace

int main() {
  bool good = quiet_without_mutation();
  for (Mutation mutation : kMutations) {
    good = found_by_explorer(mutation, false) && good;
    good = found_by_explorer(mutation, true) && good;
    good = found_by_random(mutation) && good;
  }
  for (Mutation mutation : kVisible) good = found_by_history(mutation) && good;
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
