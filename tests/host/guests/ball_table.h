// Two threads that hand a number to and fro: a mutex and a condition variable on a page of their
// own. An ordinary program's code; it knows nothing of xenspan.
#pragma once

#include <condition_variable>
#include <mutex>

struct alignas(4096) BallTable {
  // One of the two sides, 0 or 1: takes the ball so many times, or until `stop`.
  template <typename Stop>
  void play(long side, int times, const Stop& stop) {
    for (int i = 0; i < times; ++i) {
      std::unique_lock guard(lock);
      turn.wait(guard, [&] { return ball % 2 == side || stop; });
      if (ball % 2 != side) return;
      ++ball;
      turn.notify_all();
    }
  }

  std::mutex lock;
  std::condition_variable turn;
  long ball = 0;
};
