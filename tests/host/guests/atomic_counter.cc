// Atomics: fetch_add, compare-exchange, exchange, a 16-byte compare-exchange, a spin lock, message
// passing, and the store-buffer test (both threads reading the old value is forbidden under
// sequential consistency).
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "require.h"

namespace {

constexpr unsigned kThreads = 6;
constexpr std::uint64_t kRounds = 20000;

struct alignas(64) Counters {
  std::atomic<std::uint64_t> added{0}, exchanged{0}, tokens{0};
  std::atomic_flag lock = ATOMIC_FLAG_INIT;
  std::uint64_t plain = 0;
  alignas(16) unsigned __int128 wide = 0;
} counters;

// cmpxchg16b by hand: the compiler would call a library for it.
bool compare_exchange_wide(unsigned __int128* at, unsigned __int128& expected,
                           unsigned __int128 desired) {
  bool done;
  auto low = static_cast<std::uint64_t>(expected),
       high = static_cast<std::uint64_t>(expected >> 64);
  asm volatile("lock cmpxchg16b %1"
               : "=@ccz"(done), "+m"(*at), "+a"(low), "+d"(high)
               : "b"(static_cast<std::uint64_t>(desired)),
                 "c"(static_cast<std::uint64_t>(desired >> 64))
               : "memory");
  expected = static_cast<unsigned __int128>(high) << 64 | low;
  return done;
}

void count(unsigned seed) {
  for (std::uint64_t i = 0; i < kRounds; ++i) {
    counters.added.fetch_add(1);
    std::uint64_t seen = counters.exchanged.load();
    while (!counters.exchanged.compare_exchange_weak(seen, seen + 1)) {
    }
    if ((i + seed) % 16 == 0) counters.tokens.fetch_add(counters.tokens.exchange(0) + 1);
    if (i % 16 != 0) continue;
    while (counters.lock.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
    ++counters.plain;
    counters.lock.clear(std::memory_order_release);
    unsigned __int128 wide = 0;
    const unsigned __int128 one = (static_cast<unsigned __int128>(1) << 64) + 1;
    while (!compare_exchange_wide(&counters.wide, wide, wide + one)) {
    }
  }
}

// Two variables on two pages.
struct Litmus {
  alignas(4096) std::atomic<int> x{0};
  alignas(4096) std::atomic<int> y{0};
  alignas(4096) std::atomic<int> arrived{0};
} litmus;

void meet(int number) {
  litmus.arrived.fetch_add(1);
  while (litmus.arrived.load() < number) std::this_thread::yield();
}

void store_buffer() {
  constexpr int kTries = 300;
  int seen[2] = {};
  int forbidden = 0;
  const auto side = [&](int me) {
    for (int i = 1; i <= kTries; ++i) {
      meet(6 * i - 4);
      (me == 0 ? litmus.x : litmus.y).store(i);
      seen[me] = (me == 0 ? litmus.y : litmus.x).load();
      meet(6 * i - 2);
      if (me == 0 && seen[0] != i && seen[1] != i) ++forbidden;
      meet(6 * i);
    }
  };
  std::thread other(side, 1);
  side(0);
  other.join();
  REQUIRE(forbidden == 0);
}

}  // namespace

int main() {
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kThreads; ++i) threads.emplace_back(count, i);
  for (std::thread& thread : threads) thread.join();
  constexpr std::uint64_t kSlow = kThreads * (kRounds / 16);
  REQUIRE(counters.added == kThreads * kRounds);
  REQUIRE(counters.exchanged == kThreads * kRounds);
  REQUIRE(counters.tokens == kSlow);
  REQUIRE(counters.plain == kSlow);
  REQUIRE(static_cast<std::uint64_t>(counters.wide) == kSlow);
  REQUIRE(static_cast<std::uint64_t>(counters.wide >> 64) == kSlow);
  store_buffer();
  std::printf("ok atomic_counter %lu %lu\n", static_cast<unsigned long>(counters.added),
              static_cast<unsigned long>(counters.plain));
}
