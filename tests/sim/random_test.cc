// One million random schedules. --seed N, --schedules N, --first N, --threads N. Prints what it
// counted; ends with 1, the seed, the schedule's number and its events when anything is violated.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "tests/sim/random_runs.h"

namespace {

using namespace xenspan::dsm::sim;

struct Arguments {
  RandomOptions options{.schedules = 1'000'000};
  unsigned threads = 2;
};

bool parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) return false;
    char* end = nullptr;
    const std::uint64_t value = std::strtoull(argv[i + 1], &end, 10);
    if (end == argv[i + 1] || *end != '\0') return false;
    if (std::strcmp(argv[i], "--seed") == 0) {
      arguments.options.seed = value;
    } else if (std::strcmp(argv[i], "--schedules") == 0) {
      arguments.options.schedules = value;
    } else if (std::strcmp(argv[i], "--first") == 0) {
      arguments.options.first = value;
    } else if (std::strcmp(argv[i], "--threads") == 0 && value >= 1 && value <= 256) {
      arguments.threads = static_cast<unsigned>(value);
    } else {
      return false;
    }
  }
  return true;
}

RandomResult run_all(const Arguments& arguments) {
  const unsigned threads = arguments.threads;
  std::vector<RandomResult> results(threads);
  std::vector<std::thread> workers;
  std::uint64_t first = arguments.options.first;
  for (unsigned i = 0; i < threads; ++i) {
    RandomOptions part = arguments.options;
    part.first = first;
    part.schedules = part.schedules / threads + (i < part.schedules % threads ? 1 : 0);
    first += part.schedules;
    workers.emplace_back([&results, i, part] { results[i] = run_random(part); });
  }
  RandomResult all;
  for (unsigned i = 0; i < threads; ++i) {
    workers[i].join();
    all.add(results[i]);
  }
  return all;
}

unsigned long long number(std::uint64_t value) { return value; }

void print(const RandomResult& result, std::uint64_t seed, double seconds) {
  std::printf(
      "random: seed %llu: %llu schedules, %llu events, %llu accesses, %llu answers repeated, %.1f "
      "s\n",
      number(seed), number(result.schedules), number(result.events), number(result.accesses),
      number(result.repeated), seconds);
  std::printf("random: hosts:schedules");
  for (unsigned hosts = 2; hosts <= kMaxSimHosts; ++hosts) {
    std::printf(" %u:%llu", hosts, number(result.by_hosts[hosts]));
  }
  std::printf(
      "\nrandom: sequentially consistent by order graph %llu, by search without the order %llu "
      "(undecided within budget %llu)\n",
      number(result.by_graph), number(result.by_search), number(result.search_undecided));
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (!parse(argc, argv, arguments)) {
    std::fprintf(stderr,
                 "usage: random_test [--seed N] [--schedules N] [--first N] [--threads N]\n");
    return 2;
  }
  const auto start = std::chrono::steady_clock::now();
  const RandomResult result = run_all(arguments);
  print(result, arguments.options.seed,
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  if (result.violation.empty()) return EXIT_SUCCESS;
  std::printf(
      "violated: %s\nagain: random_test --threads 1 --seed %llu --first %llu --schedules 1\n%s",
      result.violation.c_str(), number(arguments.options.seed), number(result.violated_at),
      result.trace.c_str());
  return EXIT_FAILURE;
}
