// Explores small systems completely and prints what it counted. Ends with 1 and a trace when
// anything is violated.
#include "tests/sim/explorer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace xenspan::dsm::sim;

struct Case {
  Shape shape;
};

constexpr std::uint64_t kMostStates =
    20'000'000;  // more do not fit into memory; every case has to be complete

// kinds 2: read, write; 3: discard too. managers: of page 0, 1.
const Case kCases[] = {
    {{.hosts = 2, .pages = 1, .ops = 3, .managers = {0}}},
    {{.hosts = 2, .pages = 1, .ops = 3, .managers = {1}}},
    {{.hosts = 2, .pages = 1, .ops = 3, .fine = true, .managers = {0}}},
    {{.hosts = 2, .pages = 1, .ops = 3, .fine = true, .managers = {1}}},
    {{.hosts = 2, .pages = 1, .vcpus_per_host = 2, .ops = 2, .refaults = 0, .managers = {1}}},
    {{.hosts = 3, .pages = 1, .ops = 2, .managers = {0}}},
    {{.hosts = 3, .pages = 1, .ops = 2, .managers = {1}}},
    {{.hosts = 3, .pages = 1, .ops = 2, .refaults = 0, .fine = true, .managers = {2}}},
    {{.hosts = 3, .pages = 1, .ops = 3, .refaults = 0, .managers = {1}}},
    {{.hosts = 4, .pages = 1, .ops = 1, .managers = {1}}},
    {{.hosts = 2, .pages = 2, .ops = 2, .managers = {0, 1}}},
    {{.hosts = 2, .pages = 2, .ops = 3, .managers = {0, 1}}},
    {{.hosts = 3, .pages = 2, .ops = 2, .kinds = 2, .refaults = 0, .managers = {1, 2}}},
    {{.hosts = 3,
      .pages = 1,
      .ops = 2,
      .refaults = 0,
      .repeats = true,
      .crash = true,
      .managers = {0}}},
    {{.hosts = 2,
      .pages = 1,
      .ops = 2,
      .fine = true,
      .repeats = true,
      .crash = true,
      .managers = {1}}},
    {{.hosts = 3,
      .pages = 1,
      .ops = 2,
      .refaults = 0,
      .fine = true,
      .wide = true,
      .managers = {2}}},
    {{.hosts = 4, .pages = 1, .ops = 1, .wide = true, .managers = {1}}},
    {{.hosts = 2,
      .pages = 1,
      .ops = 2,
      .fine = true,
      .repeats = true,
      .crash = true,
      .wide = true,
      .managers = {1}}},
    {{.hosts = 3,
      .pages = 2,
      .ops = 2,
      .kinds = 2,
      .refaults = 0,
      .repeats = true,
      .crash = true,
      .managers = {0, 0}}},
};

std::atomic<std::uint64_t> total_states{0};
std::atomic<bool> good{true};

bool run_case(const Case& one) {
  const auto start = std::chrono::steady_clock::now();
  const Exploration found = explore(one.shape, kMostStates);
  total_states += found.states;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const Shape& shape = one.shape;
  std::string what = shape.fine ? ", step by step" : "";
  if (shape.repeats) what += ", grants may come twice";
  if (shape.crash) what += ", a host may die at any moment";
  if (shape.wide) what += ", wide machine";
  const std::string stops =
      shape.crash ? ", " + std::to_string(found.stopped) + " stopped by a death" : "";
  std::printf(
      "explorer: %u hosts x %u pages x %u vCPUs a host x %u ops (%s)%s, manager of page 0: %d: "
      "%llu states, %llu transitions, %llu ends%s, %s, %.1f s\n",
      shape.hosts, shape.pages, shape.vcpus_per_host, shape.ops,
      shape.kinds == 3 ? "read, write, discard" : "read, write", what.c_str(), shape.managers[0],
      static_cast<unsigned long long>(found.states),
      static_cast<unsigned long long>(found.transitions),
      static_cast<unsigned long long>(found.ends), stops.c_str(),
      found.complete ? "complete" : "INCOMPLETE", seconds);
  std::fflush(stdout);
  if (!found.violation.empty()) {
    std::printf("violated: %s\n%s", found.violation.c_str(), found.trace.c_str());
    return false;
  }
  return found.ends > 0 && found.complete;
}

}  // namespace

int main() {
  std::atomic<std::size_t> next{0};
  const auto work = [&next] {
    // The largest cases are the last ones: they come first.
    for (std::size_t i; (i = next++) < std::size(kCases);) {
      if (!run_case(kCases[std::size(kCases) - 1 - i])) good = false;
    }
  };
  std::vector<std::jthread> threads;
  for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); ++i) {
    threads.emplace_back(work);
  }
  threads.clear();
  std::printf("explorer: %llu states in all\n", static_cast<unsigned long long>(total_states));
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
