// How long a thread looks for something before it sleeps for it.
//
// Waking a sleeper is dear: a core with nothing to do halts, and to get it going again costs tens
// of microseconds, under a hypervisor more than a page's whole journey. So a thread that expects an
// answer looks for it: first without a pause (poll_us), then offering its core to others between
// looks, as long as nobody takes it (share_us). Another thread that did get the core is the sign
// that it is wanted: from then on looking would cost more than waking, and the thread sleeps.
// (Competitive spinning: Karlin, Li, Manasse, Owicki, SOSP 1991; the wait is bounded by what a
// wake-up costs.)
//
// Not for real-time threads: their sched_yield offers the core to nobody of lower priority; they
// get the first part alone. Threading: an object is for one wait of one thread.
#pragma once

#include <sched.h>

#include <cstdint>

#include "dsm-rdma/futex_lock.h"

namespace xenspan::dsm {

struct PatienceLimits {
  unsigned poll_us = 0;
  unsigned share_us = 0;  // beyond poll_us
};

// For a vCPU that waits for another host.
inline constexpr PatienceLimits kVcpuPatience{150, 300};

class Patience {
 public:
  explicit Patience(const PatienceLimits& limits) noexcept : limits_(limits) { restart(); }

  // Something has come, and more is usually close behind.
  void restart() noexcept {
    const std::uint64_t now = now_ns();
    share_at_ = now + std::uint64_t{limits_.poll_us} * 1000;
    if (!wanted_) sleep_at_ = share_at_ + std::uint64_t{limits_.share_us} * 1000;
  }
  // After a look without success: whether to look again.
  bool look_again() noexcept {
    const std::uint64_t now = now_ns();
    if (now < share_at_) {
      cpu_pause();
      return true;
    }
    if (wanted_ || now >= sleep_at_) return false;
    ::sched_yield();
    wanted_ = now_ns() > now + kTakenNs;
    return !wanted_;
  }

 private:
  // A yield that nobody uses takes less than a microsecond. A service thread that runs in between
  // takes some tens and is soon gone; another thread of the guest keeps the core for longer.
  static constexpr std::uint64_t kTakenNs = 150'000;

  const PatienceLimits limits_;
  std::uint64_t share_at_ = 0, sleep_at_ = 0;
  bool wanted_ = false;
};

}  // namespace xenspan::dsm
