// patterns WHAT: how two threads on two processors use the same pages, in turns: what a feature of
// the engine is for, and little else.
//
// WHAT is `migratory`: each thread in its turn reads and then writes every page; `zero`: one fills
// pages and clears them again, the other reads them; `read-mostly`: one writes every page now and
// then, the other reads all of them a while later. The time is that of the accesses alone, of both
// threads; with `zero`, of the reader.
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "timing.h"

namespace {

constexpr std::size_t kPage = 4096;

struct Pattern {
  const char* name;
  unsigned pages, rounds;
  double pause;   // seconds between a turn and the next
  bool in_order;  // of their addresses; and the reader's time alone counts
};
constexpr Pattern kPatterns[] = {{"migratory", 64, 60, 0, false},
                                 {"zero", 1024, 12, 0, true},
                                 {"read-mostly", 32, 60, 0.002, false}};

struct alignas(kPage) Turn {
  std::atomic<unsigned> number{0};
} turn;
struct alignas(kPage) Side {
  double seconds = 0;
  std::uint64_t sum = 0;
  int cpu = -1;
} sides[2];
std::byte* pool;

volatile std::uint64_t& word(unsigned page) {
  return *reinterpret_cast<volatile std::uint64_t*>(pool + std::size_t{page} * kPage);
}

std::uint64_t visit(const Pattern& pattern, unsigned self, unsigned round, unsigned page) {
  switch (pattern.name[0]) {
    case 'm': {
      const std::uint64_t seen = word(page);
      word(page) = seen + 1;
      return seen;
    }
    case 'z':
      if (self == 1) return word(page);
      for (std::size_t i = 0; i < kPage; ++i) pool[page * kPage + i] = std::byte{1};
      std::memset(pool + page * kPage, 0, kPage);
      return 0;
    default:
      if (self == 1) return word(page);
      word(page) = round;
      return 0;
  }
}

void play(const Pattern& pattern, unsigned self) {
  Side& side = sides[self];
  side.cpu = sched_getcpu();
  std::vector<unsigned> order(pattern.pages);
  for (unsigned i = 0; i < pattern.pages; ++i) order[i] = i;
  std::mt19937 random(self);
  for (unsigned round = 0; round < 2 * pattern.rounds; ++round) {
    if (round % 2 != self) continue;
    for (unsigned seen; (seen = turn.number.load()) != round;) turn.number.wait(seen);
    for (const double end = seconds_now() + pattern.pause; seconds_now() < end;)
      std::this_thread::yield();
    if (!pattern.in_order) std::shuffle(order.begin(), order.end(), random);
    const double start = seconds_now();
    for (const unsigned page : order) side.sum += visit(pattern, self, round, page);
    side.seconds += seconds_now() - start;
    turn.number.store(round + 1);
    turn.number.notify_all();
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Pattern* chosen = nullptr;
  for (const Pattern& each : kPatterns)
    if (argc > 1 && std::strcmp(argv[1], each.name) == 0) chosen = &each;
  if (chosen == nullptr) {
    std::fprintf(stderr, "usage: patterns migratory|zero|read-mostly\n");
    return 2;
  }
  void* const memory = mmap(nullptr, chosen->pages * kPage, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("patterns: mmap");
    return 1;
  }
  pool = static_cast<std::byte*>(memory);
  std::thread other([chosen] { play(*chosen, 1); });
  play(*chosen, 0);
  other.join();
  if (sides[0].cpu == sides[1].cpu) {
    std::fprintf(stderr,
                 "patterns: both threads are on one processor: give the domain two vCPUs\n");
    return 1;
  }
  print_result("patterns", 2, (chosen->in_order ? 0 : sides[0].seconds) + sides[1].seconds,
               static_cast<double>(sides[0].sum + sides[1].sum));
  return 0;
}
