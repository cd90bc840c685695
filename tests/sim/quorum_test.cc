// A hundred thousand fault schedules for the machine that says who is a member of a domain, and
// each planted error found. --seed N, --schedules N, --threads N; --trace 1 prints the events of
// the first schedule. Ends with 1, the seed and what was violated.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "tests/sim/options.h"
#include "tests/sim/quorum_world.h"

namespace {

using namespace xenspan::sim;

struct Arguments {
  std::uint64_t seed = 1, schedules = 100'000, threads = 2, trace = 0;
};

bool parse(int argc, char** argv, Arguments& arguments) {
  return read_options(argc, argv, [&](std::string_view name, std::uint64_t value) {
    if (name == "--seed")
      arguments.seed = value;
    else if (name == "--schedules")
      arguments.schedules = value;
    else if (name == "--threads" && value >= 1)
      arguments.threads = value;
    else if (name == "--trace")
      arguments.trace = value;
    else
      return false;
    return true;
  });
}

struct Found {
  std::string failure;
  std::uint64_t seed = 0;
  QuorumCounts counts;
};

Found run_part(std::uint64_t seed, std::uint64_t step, std::uint64_t count, bool trace) {
  Found found;
  for (std::uint64_t i = 0; i < count && found.failure.empty(); ++i) {
    found.seed = seed + i * step;
    found.failure = run_quorum({found.seed, QuorumError::kNone, trace && i == 0}, found.counts);
  }
  return found;
}

unsigned long long number(std::uint64_t value) { return value; }

bool run_all(const Arguments& arguments) {
  std::vector<Found> found(arguments.threads);
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < arguments.threads; ++i)
    threads.emplace_back([&, i] {
      const std::uint64_t count = arguments.schedules / arguments.threads +
                                  (i < arguments.schedules % arguments.threads ? 1 : 0);
      found[i] =
          run_part(arguments.seed + i, arguments.threads, count, arguments.trace != 0 && i == 0);
    });
  QuorumCounts all;
  bool good = true;
  for (std::uint64_t i = 0; i < arguments.threads; ++i) {
    threads[i].join();
    all.add(found[i].counts);
    if (found[i].failure.empty()) continue;
    good = false;
    std::printf("quorum: seed %llu: %s\n  repeat: --seed %llu --schedules 1 --trace 1\n",
                number(found[i].seed), found[i].failure.c_str(), number(found[i].seed));
  }
  std::printf(
      "quorum: %llu fault schedules from seed %llu, %llu events: %llu crashes, %llu cuts, %llu "
      "hosts slow, %llu joins, %llu leaves, %llu homes moved, %llu epochs, %llu leases ended, %llu "
      "came back, %llu "
      "fenced, %llu homes lost; a "
      "simple loss known to all within %lld ms of 3000\n",
      number(all.schedules), number(arguments.seed), number(all.events), number(all.crashes),
      number(all.cuts), number(all.slow), number(all.joins), number(all.leaves), number(all.moves),
      number(all.epochs), number(all.holds), number(all.resumed), number(all.fenced),
      number(all.lost_homes), static_cast<long long>(all.slowest_ms));
  return good;
}

bool find_errors() {
  bool all = true;
  for (int i = 1; i < static_cast<int>(QuorumError::kCount); ++i) {
    const auto error = static_cast<QuorumError>(i);
    QuorumCounts counts;
    std::string failure;
    std::uint64_t seed = 1;
    while (seed <= 3000 && failure.empty()) failure = run_quorum({seed++, error, false}, counts);
    std::printf("quorum: error %s: %s\n", text_of(error),
                failure.empty()
                    ? "NOT FOUND"
                    : (failure + ", after " + std::to_string(seed - 1) + " schedules").c_str());
    all = all && !failure.empty();
  }
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (!parse(argc, argv, arguments)) {
    std::fprintf(stderr, "usage: %s [--seed N] [--schedules N] [--threads N] [--trace 1]\n",
                 argv[0]);
    return 2;
  }
  const bool good = run_all(arguments);
  if (arguments.schedules < 1000) return good ? 0 : 1;
  const bool errors = find_errors();
  return good && errors ? 0 : 1;
}
