// Thread-local storage: initial values, alignment, separate copies, constructors and destructors,
// deep recursion on each thread's own stack, and threads that start threads.
#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "require.h"

namespace {

constexpr int kThreads = 8, kGenerations = 5;
std::atomic<int> made{0}, destroyed{0};

struct Tracked {
  std::string text = "fresh";
  Tracked() { ++made; }
  ~Tracked() {
    REQUIRE(text == "used" || text == "fresh");
    ++destroyed;
  }
};

thread_local Tracked tracked;
thread_local int number = 41;
thread_local char zeroes[10000];
alignas(64) thread_local std::uint64_t line[8] = {1, 2, 3, 4, 5, 6, 7, 8};

// Uses about 1 KiB of stack a level.
int deep(int levels) {
  volatile char frame[1024];
  frame[0] = static_cast<char>(levels);
  frame[1023] = frame[0];
  return levels == 0 ? frame[1023] : deep(levels - 1) + (frame[0] == frame[1023] ? 1 : 0);
}

void work(int me) {
  REQUIRE(number == 41);
  REQUIRE(reinterpret_cast<std::uintptr_t>(&line) % 64 == 0 && line[7] == 8);
  for (const char zero : zeroes) REQUIRE(zero == 0);
  REQUIRE(tracked.text == "fresh");
  tracked.text = "used";
  for (int i = 0; i < 1000; ++i) {
    number += me;
    zeroes[i * 10] = static_cast<char>(me);
    if (i % 100 == 0) std::this_thread::yield();
  }
  REQUIRE(number == 41 + 1000 * me);
  REQUIRE(deep(2000) == 2000);
  if (me == 1) {
    std::thread child([] { REQUIRE(number == 41 && zeroes[0] == 0); });
    child.join();
  }
  REQUIRE(number == 41 + 1000 * me);
}

}  // namespace

int main() {
  for (int generation = 0; generation < kGenerations; ++generation) {
    std::vector<std::thread> threads;
    for (int i = 1; i <= kThreads; ++i) threads.emplace_back(work, i);
    for (std::thread& thread : threads) thread.join();
  }
  REQUIRE(number == 41);
  REQUIRE(made == kThreads * kGenerations);
  REQUIRE(destroyed == made);
  std::printf("ok tls %d\n", destroyed.load());
}
