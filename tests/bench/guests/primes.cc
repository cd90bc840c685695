// primes [LIMIT]: counts the primes below LIMIT with as many std::threads as the machine has
// processors. A segmented sieve: an atomic hands out segments, a mutex and a condition variable
// collect the counts.
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#include "timing.h"

namespace {

constexpr std::uint64_t kSegment = 1 << 19;

std::vector<std::uint32_t> small_primes(std::uint64_t limit) {
  std::vector<bool> composite(limit + 1);
  std::vector<std::uint32_t> primes;
  for (std::uint64_t i = 2; i <= limit; i++) {
    if (composite[i]) continue;
    primes.push_back(static_cast<std::uint32_t>(i));
    for (std::uint64_t j = i * i; j <= limit; j += i) composite[j] = true;
  }
  return primes;
}

std::uint64_t count_segment(const std::vector<std::uint32_t>& primes, std::uint64_t low,
                            std::uint64_t high) {
  std::vector<char> composite(high - low);
  for (const std::uint64_t p : primes) {
    if (p * p >= high) break;
    std::uint64_t first = (low + p - 1) / p * p;
    if (first < p * p) first = p * p;
    for (std::uint64_t j = first; j < high; j += p) composite[j - low] = 1;
  }
  std::uint64_t count = 0;
  for (std::uint64_t i = low; i < high; i++) count += i >= 2 && !composite[i - low];
  return count;
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t limit = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 2'000'000'000;
  if (limit < 2 || limit > 1'000'000'000'000) {
    std::fprintf(stderr, "usage: primes [LIMIT]: LIMIT from 2 to 10^12\n");
    return 2;
  }
  std::uint64_t root = 1;
  while (root * root < limit) root++;
  const double start = seconds_now();
  const auto primes = small_primes(root);

  std::atomic<std::uint64_t> next{0};
  std::mutex mutex;
  std::condition_variable all_done;
  std::uint64_t total = 0;
  unsigned done = 0;
  const unsigned threads = std::thread::hardware_concurrency();
  const auto work = [&] {
    std::uint64_t mine = 0;
    for (;;) {
      const std::uint64_t low = next.fetch_add(kSegment);
      if (low >= limit) break;
      mine += count_segment(primes, low, low + kSegment < limit ? low + kSegment : limit);
    }
    const std::lock_guard lock(mutex);
    total += mine;
    if (++done == threads) all_done.notify_one();
  };
  std::vector<std::thread> pool;
  for (unsigned i = 0; i < threads; i++) pool.emplace_back(work);
  {
    std::unique_lock lock(mutex);
    all_done.wait(lock, [&] { return done == threads; });
  }
  for (std::thread& thread : pool) thread.join();
  print_result("primes", static_cast<int>(threads), seconds_now() - start,
               static_cast<double>(total));
  return 0;
}
