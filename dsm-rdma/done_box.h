// Reports to managers (kDone) that may leave a little later, out of the way of the vCPU that has
// just got its page.
//
// A manager serves a page's next request when it hears kDone. For the first microseconds the page
// would be kept anyway (hold window), so the report need not delay the vCPU: it leaves with the
// thread's next request, or by the service thread at the end of the window, whichever is first.
// Threading: any. No allocation.
#pragma once

#include <array>
#include <atomic>
#include <mutex>

#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/ivy/message.h"

namespace xenspan::dsm {

class DoneBox {
 public:
  enum class Pushed { kFirst, kOneMore, kFull };
  Pushed push(const ivy::Message& done) noexcept {
    const std::lock_guard guard(lock_);
    const std::size_t count = count_.load(std::memory_order_relaxed);
    if (count == kRoom) return Pushed::kFull;
    messages_[count] = done;
    count_.store(count + 1, std::memory_order_seq_cst);
    return count == 0 ? Pushed::kFirst : Pushed::kOneMore;
  }
  // Any one of them.
  bool pop(ivy::Message& done) noexcept {
    if (count_.load(std::memory_order_seq_cst) == 0) return false;
    const std::lock_guard guard(lock_);
    const std::size_t count = count_.load(std::memory_order_relaxed);
    if (count == 0) return false;
    done = messages_[count - 1];
    count_.store(count - 1, std::memory_order_relaxed);
    return true;
  }

 private:
  static constexpr std::size_t kRoom = 64;
  FutexLock lock_;
  std::array<ivy::Message, kRoom> messages_;  // GUARDED_BY(lock_)
  std::atomic<std::size_t> count_{0};         // changed with lock_ held
};

}  // namespace xenspan::dsm
