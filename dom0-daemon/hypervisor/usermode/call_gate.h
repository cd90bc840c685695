// The gate that every call of a guest thread at the home goes through, on its own host: closed
// while the home's role moves.
//
// hold() and then calls() == 0 means: no call of this slice is under way, and none begins before
// release(). Threading: enter() and leave() from guest threads, also in signal handlers (no
// allocation, no lock; a kick meanwhile is handled and forgets nothing); the rest from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "dsm-rdma/futex_lock.h"

namespace xenspan::hypervisor::usermode {

class CallGate {
 public:
  void enter() noexcept {
    for (;;) {
      calls_.fetch_add(1);
      if (held_.load() == 0) return;
      calls_.fetch_sub(1);
      dsm::futex_wait(held_, 1);
    }
  }
  void leave() noexcept { calls_.fetch_sub(1); }

  void hold() noexcept { held_ = 1; }
  void release() noexcept {
    held_ = 0;
    dsm::futex_wake(held_, INT32_MAX);
  }
  bool held() const noexcept { return held_.load() != 0; }
  unsigned calls() const noexcept { return calls_.load(); }
  // Waits at most so long for calls to end: how many have not. One that comes to the closed gate
  // counts for a moment.
  unsigned await_calls(std::chrono::milliseconds limit) const noexcept {
    constexpr timespec kNap{0, 1'000'000};
    const std::uint64_t end = dsm::now_ns() + static_cast<std::uint64_t>(limit.count()) * 1'000'000;
    for (;;) {
      const unsigned left = calls();
      if (left == 0 || dsm::now_ns() >= end) return left;
      ::nanosleep(&kNap, nullptr);
    }
  }

 private:
  std::atomic<std::uint32_t> held_{0};
  std::atomic<unsigned> calls_{0};
};

// Within it the calling thread is in a call.
class InCall {
 public:
  explicit InCall(CallGate& gate) noexcept : gate_(gate) { gate_.enter(); }
  ~InCall() { gate_.leave(); }
  InCall(const InCall&) = delete;
  InCall& operator=(const InCall&) = delete;

 private:
  CallGate& gate_;
};

}  // namespace xenspan::hypervisor::usermode
