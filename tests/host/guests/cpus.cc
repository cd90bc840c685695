// cpus [N]: every way to ask for the number of processors, all of which must agree (with N, when it
// is given).
#include <omp.h>
#include <sched.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>

#include "require.h"

namespace {

int count_lines(const char* path, const std::string& start) {
  std::ifstream stream(path);
  int count = 0;
  for (std::string line; std::getline(stream, line);) count += line.rfind(start, 0) == 0;
  return count;
}

// "0-3,6" -> 5
int count_list(const char* path) {
  std::ifstream stream(path);
  int count = 0;
  for (std::string part; std::getline(stream, part, ',');) {
    const std::size_t dash = part.find('-');
    count += dash == std::string::npos
                 ? 1
                 : std::stoi(part.substr(dash + 1)) - std::stoi(part.substr(0, dash)) + 1;
  }
  return count;
}

int affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  REQUIRE(sched_getaffinity(0, sizeof set, &set) == 0);
  return CPU_COUNT(&set);
}

}  // namespace

int main(int argc, char** argv) {
  const int expected =
      argc > 1 ? std::stoi(argv[1]) : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  const auto check = [expected](const char* name, long count) {
    std::fprintf(stderr, "%s %ld\n", name, count);
    REQUIRE(count == expected);
  };
  check("sysconf online", sysconf(_SC_NPROCESSORS_ONLN));
  check("sysconf configured", sysconf(_SC_NPROCESSORS_CONF));
  check("get_nprocs", get_nprocs());
  check("sched_getaffinity", affinity());
  check("hardware_concurrency", std::thread::hardware_concurrency());
  check("omp_get_num_procs", omp_get_num_procs());
  check("sysfs online", count_list("/sys/devices/system/cpu/online"));
  check("cpuinfo", count_lines("/proc/cpuinfo", "processor"));
  check("stat", count_lines("/proc/stat", "cpu") - 1);
  int running = 0;
#pragma omp parallel reduction(+ : running)
  running += 1;
  std::fprintf(stderr, "omp_get_max_threads %d\nparallel region %d\n", omp_get_max_threads(),
               running);
  const char* wanted = std::getenv("OMP_NUM_THREADS");
  REQUIRE(omp_get_max_threads() == (wanted != nullptr ? std::stoi(wanted) : expected));
  REQUIRE(running == omp_get_max_threads());
  REQUIRE(sched_getcpu() >= 0 && sched_getcpu() < expected);
  std::printf("ok cpus\n");
}
