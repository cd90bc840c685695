// Explores small systems completely and prints what it counted. Ends with 1 and a trace when
// anything is violated.
#include "tests/sim/explorer.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

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
};

bool run_case(const Case& one) {
  const auto start = std::chrono::steady_clock::now();
  const Exploration found = explore(one.shape, kMostStates);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const Shape& shape = one.shape;
  std::printf(
      "explorer: %u hosts x %u pages x %u vCPUs a host x %u ops (%s)%s, manager of page 0: %d: "
      "%llu states, %llu transitions, %llu ends, %s, %.1f s\n",
      shape.hosts, shape.pages, shape.vcpus_per_host, shape.ops,
      shape.kinds == 3 ? "read, write, discard" : "read, write", shape.fine ? ", step by step" : "",
      shape.managers[0], static_cast<unsigned long long>(found.states),
      static_cast<unsigned long long>(found.transitions),
      static_cast<unsigned long long>(found.ends), found.complete ? "complete" : "INCOMPLETE",
      seconds);
  std::fflush(stdout);
  if (!found.violation.empty()) {
    std::printf("violated: %s\n%s", found.violation.c_str(), found.trace.c_str());
    return false;
  }
  return found.ends > 0 && found.complete;
}

}  // namespace

int main() {
  bool good = true;
  for (const Case& one : kCases) good = run_case(one) && good;
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
