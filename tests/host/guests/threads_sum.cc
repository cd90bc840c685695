// std::thread: eight threads sum their parts of one large array, written by others than read it.
#include <cstdint>
#include <numeric>
#include <thread>
#include <vector>

#include "require.h"

int main() {
  constexpr unsigned kThreads = 8;
  constexpr std::uint64_t kWords = 4 << 20;
  std::vector<std::uint64_t> words(kWords), sums(kThreads);
  const auto in_threads = [](auto work) {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
    for (std::thread& thread : threads) thread.join();
  };
  const std::uint64_t part = kWords / kThreads;
  in_threads([&](unsigned i) { std::iota(&words[i * part], &words[i * part] + part, i * part); });
  in_threads([&](unsigned i) {
    const std::uint64_t* start = &words[(kThreads - 1 - i) * part];
    sums[i] = std::accumulate(start, start + part, std::uint64_t{0});
  });
  const std::uint64_t sum = std::accumulate(sums.begin(), sums.end(), std::uint64_t{0});
  REQUIRE(sum == kWords * (kWords - 1) / 2);
  std::printf("ok threads_sum %lu\n", static_cast<unsigned long>(sum));
}
