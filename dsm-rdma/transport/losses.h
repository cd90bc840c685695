// Which peers a transport has lost, and why: found by any thread, reported by the service thread,
// each peer once.
//
// Whoever finds a loss first says why; later findings about the same peer are its consequences.
// Threading: note() and any() any thread; report() the service thread. No allocation, no lock.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>

#include "dsm-rdma/transport/transport.h"

namespace xenspan::dsm {

class Losses {
 public:
  // true: nobody has found it before, and the caller is to wake the service thread. `why` is
  // static.
  bool note(HostId peer, const char* why) noexcept {
    Loss& loss = losses_[peer];
    int none = Loss::kNone;
    if (!loss.state.compare_exchange_strong(none, Loss::kWriting)) return false;
    loss.why = why;
    loss.state.store(Loss::kKnown, std::memory_order_release);
    news_.store(true, std::memory_order_release);
    return true;
  }
  void report(Sink& sink) noexcept {
    if (!news_.exchange(false, std::memory_order_acquire)) return;
    for (std::size_t peer = 0; peer < losses_.size(); ++peer) {
      int known = Loss::kKnown;
      if (!losses_[peer].state.compare_exchange_strong(known, Loss::kReported)) continue;
      sink.peer_lost(static_cast<HostId>(peer), losses_[peer].why);
    }
  }
  // Another host has this number now, and can be lost as the one before was.
  void forget(HostId peer) noexcept { losses_[peer].state.store(Loss::kNone); }
  bool any() const noexcept {
    return std::any_of(losses_.begin(), losses_.end(),
                       [](const Loss& loss) { return loss.state.load() != Loss::kNone; });
  }

 private:
  struct Loss {
    enum State : int { kNone, kWriting, kKnown, kReported };
    std::atomic<int> state{kNone};
    const char* why = nullptr;  // written once, read after `state` says so
  };
  std::array<Loss, kMaxHosts> losses_;
  std::atomic<bool> news_{false};  // a loss that has not been reported
};

}  // namespace xenspan::dsm
