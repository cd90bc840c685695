// One million random schedules of 2 to 8 hosts, and some of 9 to 256. --seed N, --schedules N,
// --crowds N, --first N, --threads N. Prints what it counted; ends with 1, the seed, the schedule's
// number and its events when anything is violated.
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "tests/sim/options.h"
#include "tests/sim/random_runs.h"

namespace {

using namespace xenspan::dsm::sim;

struct Arguments {
  RandomOptions options{.schedules = 1'000'000};
  std::uint64_t crowds = 1'000;
  unsigned threads = 2;
};

bool parse(int argc, char** argv, Arguments& arguments) {
  return xenspan::sim::read_options(argc, argv, [&](std::string_view name, std::uint64_t value) {
    if (name == "--seed")
      arguments.options.seed = value;
    else if (name == "--schedules")
      arguments.options.schedules = value;
    else if (name == "--crowds")
      arguments.crowds = value;
    else if (name == "--first")
      arguments.options.first = value;
    else if (name == "--threads" && value >= 1 && value <= 256)
      arguments.threads = static_cast<unsigned>(value);
    else
      return false;
    return true;
  });
}

unsigned long long number(std::uint64_t value) { return value; }

// Schedules by their number of hosts: one by one, or in ranges.
void print_hosts(const RandomResult& result, unsigned from, unsigned to) {
  std::uint64_t count = 0;
  for (unsigned hosts = from; hosts <= to; ++hosts) count += result.by_hosts[hosts];
  if (from == to) {
    std::printf(" %u:%llu", from, number(count));
  } else {
    std::printf(" %u-%u:%llu", from, to, number(count));
  }
}

void print(const RandomResult& result, const RandomOptions& options, double seconds) {
  std::printf(
      "random: seed %llu%s: %llu schedules, %llu events, %llu accesses, %llu answers repeated, "
      "%llu schedules with the wide machine, %.1f s\n",
      number(options.seed), options.crowds ? ", crowds" : "", number(result.schedules),
      number(result.events), number(result.accesses), number(result.repeated), number(result.wide),
      seconds);
  std::printf("random: hosts:schedules");
  if (options.crowds) {
    print_hosts(result, 9, 16);
    print_hosts(result, 17, 32);
    print_hosts(result, 33, 64);
    print_hosts(result, 65, 128);
    print_hosts(result, 129, 256);
  } else {
    for (unsigned hosts = 2; hosts <= 8; ++hosts) print_hosts(result, hosts, hosts);
  }
  std::printf(
      "\nrandom: sequentially consistent by order graph %llu, by search without the order %llu "
      "(undecided within budget %llu)\n",
      number(result.by_graph), number(result.by_search), number(result.search_undecided));
}

bool run_and_print(const Arguments& arguments) {
  const RandomOptions& options = arguments.options;
  if (options.schedules == 0) return true;
  const auto start = std::chrono::steady_clock::now();
  const RandomResult result = run_random_in(arguments.threads, arguments.options);
  print(result, options,
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  if (result.violation.empty()) return true;
  std::printf("violated: %s\nagain: random_test --threads 1 --seed %llu --first %llu %s\n%s",
              result.violation.c_str(), number(options.seed), number(result.violated_at),
              options.crowds ? "--schedules 0 --crowds 1" : "--schedules 1 --crowds 0",
              result.trace.c_str());
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (!parse(argc, argv, arguments)) {
    std::fprintf(stderr,
                 "usage: random_test [--seed N] [--schedules N] [--crowds N] [--first N] "
                 "[--threads N]\n");
    return 2;
  }
  bool good = run_and_print(arguments);
  arguments.options.crowds = true;
  arguments.options.schedules = arguments.crowds;
  good = run_and_print(arguments) && good;
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
