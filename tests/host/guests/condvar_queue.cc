// Four producers, four consumers, one bounded queue under a mutex and two condition variables; and
// timed waits.
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "require.h"

namespace {

class Queue {
 public:
  void put(std::uint64_t item) {
    std::unique_lock lock(mutex_);
    not_full_.wait(lock, [this] { return items_.size() < kRoom; });
    items_.push_back(item);
    not_empty_.notify_one();
  }
  // False when it is closed and empty.
  bool take(std::uint64_t& item) {
    std::unique_lock lock(mutex_);
    not_empty_.wait(lock, [this] { return !items_.empty() || closed_; });
    if (items_.empty()) return false;
    item = items_.front();
    items_.pop_front();
    not_full_.notify_one();
    return true;
  }
  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    not_empty_.notify_all();
  }

 private:
  static constexpr std::size_t kRoom = 16;
  std::mutex mutex_;
  std::condition_variable not_full_, not_empty_;
  std::deque<std::uint64_t> items_;
  bool closed_ = false;
};

void timed_wait_ends() {
  std::mutex mutex;
  std::condition_variable never;
  std::unique_lock lock(mutex);
  const auto start = std::chrono::steady_clock::now();
  const auto status = never.wait_for(lock, std::chrono::milliseconds(20), [] { return false; });
  REQUIRE(!status);
  REQUIRE(std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(20));
}

}  // namespace

int main() {
  constexpr std::uint64_t kEach = 5000, kSides = 4;
  Queue queue;
  std::vector<std::thread> producers, consumers;
  std::vector<std::uint64_t> sums(kSides), counts(kSides);
  for (std::uint64_t side = 0; side < kSides; ++side) {
    producers.emplace_back([&, side] {
      for (std::uint64_t i = 0; i < kEach; ++i) queue.put(side * kEach + i);
    });
    consumers.emplace_back([&, side] {
      for (std::uint64_t item; queue.take(item);) {
        sums[side] += item;
        ++counts[side];
      }
    });
  }
  for (std::thread& producer : producers) producer.join();
  queue.close();
  for (std::thread& consumer : consumers) consumer.join();
  std::uint64_t sum = 0, count = 0;
  for (std::uint64_t side = 0; side < kSides; ++side) {
    sum += sums[side];
    count += counts[side];
  }
  constexpr std::uint64_t kAll = kEach * kSides;
  REQUIRE(count == kAll);
  REQUIRE(sum == kAll * (kAll - 1) / 2);
  timed_wait_ends();
  std::printf("ok condvar_queue %lu %lu\n", static_cast<unsigned long>(count),
              static_cast<unsigned long>(sum));
}
