// contend WHAT SECONDS: two threads on two processors write one page as fast as they can.
//
// WHAT is `counter`: both increment one atomic counter; `sharing`: each a counter of its own on the
// same page; `mutex`: both increment a counter under a mutex; `flag`: they take turns, each waiting
// for the other one. Prints how many operations each has done and the seconds of all.
#include <sched.h>
#include <x86intrin.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>

#include "timing.h"

namespace {

constexpr std::size_t kPage = 4096;
constexpr unsigned kLook = 16;  // operations between two looks at the clock

struct alignas(kPage) Fought {
  std::atomic<std::uint64_t> counters[2] = {};
  std::atomic<std::uint32_t> turn{0};
  std::mutex mutex;
  std::uint64_t guarded = 0;
} fought;
struct alignas(kPage) Side {
  std::uint64_t done = 0;
  int cpu = -1;
} sides[2];
struct alignas(kPage) Start {
  std::atomic<int> ready{0};
} begin;

void increment(std::uint32_t, std::atomic<std::uint64_t>& counter) { counter.fetch_add(1); }

void locked(std::uint32_t, std::atomic<std::uint64_t>&) {
  const std::lock_guard guard(fought.mutex);
  fought.guarded = fought.guarded + 1;
}

std::atomic<bool>* over = nullptr;  // of the other side's page

void flag(std::uint32_t self, std::atomic<std::uint64_t>&) {
  for (unsigned spins = 0; fought.turn.load() % 2 != self; ++spins) {
    if (over->load(std::memory_order_relaxed)) return;
    _mm_pause();
  }
  fought.turn.fetch_add(1);
}

struct alignas(kPage) Over {
  std::atomic<bool> set{false};
} over_page;

// Time-stamp counter ticks a second: the clock itself would cost more than the operations.
double ticks_a_second() {
  const double start = seconds_now();
  const std::uint64_t first = __rdtsc();
  while (seconds_now() < start + 0.05) _mm_pause();
  return static_cast<double>(__rdtsc() - first) / (seconds_now() - start);
}

void fight(std::uint32_t self, void (*once)(std::uint32_t, std::atomic<std::uint64_t>&),
           std::atomic<std::uint64_t>& counter, double seconds) {
  const double ticks = ticks_a_second();
  sides[self].cpu = sched_getcpu();
  begin.ready.fetch_add(1);
  while (begin.ready.load() != 2) _mm_pause();
  const std::uint64_t end = __rdtsc() + static_cast<std::uint64_t>(seconds * ticks);
  std::uint64_t done = 0;
  while (__rdtsc() < end && !over_page.set.load(std::memory_order_relaxed)) {
    for (unsigned i = 0; i < kLook; ++i) once(self, counter);
    done += kLook;
  }
  over_page.set.store(true);
  sides[self].done = done;
}

}  // namespace

int main(int argc, char** argv) {
  const char* const what = argc > 1 ? argv[1] : "";
  const double seconds = argc > 2 ? std::atof(argv[2]) : 1;
  auto* const once = std::strcmp(what, "mutex") == 0  ? locked
                     : std::strcmp(what, "flag") == 0 ? flag
                                                      : increment;
  const bool two = std::strcmp(what, "sharing") == 0;
  if (seconds <= 0 || (once == increment && !two && std::strcmp(what, "counter") != 0)) {
    std::fprintf(stderr, "usage: contend counter|sharing|mutex|flag [SECONDS]\n");
    return 2;
  }
  over = &over_page.set;
  std::thread second([&] { fight(1, once, fought.counters[two ? 1 : 0], seconds); });
  fight(0, once, fought.counters[0], seconds);
  second.join();
  if (sides[0].cpu == sides[1].cpu) {
    std::fprintf(stderr, "contend: both threads are on one processor: give the domain two vCPUs\n");
    return 1;
  }
  const std::uint64_t sum = sides[0].done + sides[1].done;
  const std::uint64_t counted = fought.counters[0] + fought.counters[1];
  const bool lost = once == increment ? counted != sum : once == locked && fought.guarded != sum;
  if (lost) {
    std::fprintf(stderr, "contend: increments were lost\n");
    return 1;
  }
  std::printf("result program=contend threads=2 seconds=%.6f checksum=%lu first=%lu second=%lu\n",
              seconds, static_cast<unsigned long>(sum), static_cast<unsigned long>(sides[0].done),
              static_cast<unsigned long>(sides[1].done));
  return 0;
}
