// A lock in one 32-bit word, and sleeping on a word: what the fault path uses in place of
// std::mutex.
//
// It spins briefly and then sleeps in the kernel, never with sched_yield: a service thread of
// real-time priority that yields to the ordinary thread which holds the lock would spin for ever on
// one core. No allocation, no thread-local state, usable inside a signal handler. Static storage of
// zeros is an unlocked lock.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace xenspan::dsm {

inline void cpu_pause() noexcept { __builtin_ia32_pause(); }

// Sleeps while *word == seen. Returns on a wake, a signal, or at once when it differs.
inline void futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t seen) noexcept {
  ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}
inline void futex_wake(const std::atomic<std::uint32_t>& word, int count) noexcept {
  ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

// CLOCK_MONOTONIC, nanoseconds (vDSO: no system call).
inline std::uint64_t now_ns() noexcept {
  timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000u +
         static_cast<std::uint64_t>(t.tv_nsec);
}

inline constexpr int kLockSpins =
    64;  // pauses before sleeping: about the length of what these locks guard

// Bits 0 (locked) and 1 (someone sleeps) of a word whose other bits its holder uses as it likes.
class WordLock {
 public:
  static constexpr std::uint32_t kLocked = 1, kSleepers = 2, kFirstFreeBit = 2;

  static bool try_lock(std::atomic<std::uint32_t>& word) noexcept {
    return (word.fetch_or(kLocked, std::memory_order_acquire) & kLocked) == 0;
  }
  static void lock(std::atomic<std::uint32_t>& word) noexcept {
    if (try_lock(word)) return;
    for (int i = 0; i < kLockSpins; ++i) {
      cpu_pause();
      if ((word.load(std::memory_order_relaxed) & kLocked) == 0 && try_lock(word)) return;
    }
    // From here on this thread always leaves the sleepers' bit set: it cannot know that it was the
    // last one.
    while ((word.fetch_or(kLocked | kSleepers, std::memory_order_acquire) & kLocked) != 0) {
      const std::uint32_t seen = word.load(std::memory_order_relaxed);
      if ((seen & (kLocked | kSleepers)) == (kLocked | kSleepers)) futex_wait(word, seen);
    }
  }
  static void unlock(std::atomic<std::uint32_t>& word) noexcept {
    const std::uint32_t before = word.fetch_and(~(kLocked | kSleepers), std::memory_order_release);
    if ((before & kSleepers) != 0) futex_wake(word, 1);
  }
};

class FutexLock {
 public:
  void lock() noexcept { WordLock::lock(word_); }
  bool try_lock() noexcept { return WordLock::try_lock(word_); }
  void unlock() noexcept { WordLock::unlock(word_); }

 private:
  std::atomic<std::uint32_t> word_{0};
};

}  // namespace xenspan::dsm
