// The hold window (I3): which pages were granted a moment ago, and the messages that would take
// them away too soon.
//
// Recent grants are kept in a small table without locks; when two pages meet in one place the older
// loses its window, which costs time and never correctness. Held messages wait in a ring of fixed
// size, in the order they came. Threading: any. No allocation after construction.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/ivy/message.h"

namespace xenspan::dsm {

class HoldQueue {
 public:
  explicit HoldQueue(unsigned hold_us) : hold_ns_(std::uint64_t{hold_us} * 1000) {}

  void granted(Gfn gfn) noexcept {
    if (hold_ns_ == 0) return;
    Recent& recent = recent_[place_of(gfn)];
    recent.gfn.store(gfn, std::memory_order_relaxed);
    recent.until_ns.store(now_ns() + hold_ns_, std::memory_order_relaxed);
  }

  // Until when the page is to be kept, or 0. Never more than the window from now, whatever was read
  // in between.
  std::uint64_t keep_until(Gfn gfn) const noexcept {
    const Recent& recent = recent_[place_of(gfn)];
    const std::uint64_t until = recent.until_ns.load(std::memory_order_relaxed);
    if (until == 0 || recent.gfn.load(std::memory_order_relaxed) != gfn) return 0;
    return until > now_ns() ? until : 0;
  }

  // false when the ring is full: the message is then to be handled at once.
  bool push(const ivy::Message& message, std::uint64_t due_ns) noexcept {
    const std::lock_guard guard(lock_);
    if (count_ == kRoom) return false;
    ring_[(first_ + count_) % kRoom] = {message, due_ns};
    ++count_;
    return true;
  }

  // Takes the first message when it is due. Otherwise false, and the nanoseconds until it is, or -1
  // when there is none.
  bool pop_due(ivy::Message& message, long& wait_ns) noexcept {
    const std::lock_guard guard(lock_);
    wait_ns = -1;
    if (count_ == 0) return false;
    const std::uint64_t now = now_ns(), due = ring_[first_].due_ns;
    if (due > now) {
      wait_ns = static_cast<long>(due - now);
      return false;
    }
    message = ring_[first_].message;
    first_ = (first_ + 1) % kRoom;
    --count_;
    return true;
  }

 private:
  static constexpr std::size_t kPlaces = 1024, kRoom = 1024;
  struct Recent {
    std::atomic<Gfn> gfn{0};
    std::atomic<std::uint64_t> until_ns{0};
  };
  struct Held {
    ivy::Message message;
    std::uint64_t due_ns;
  };
  static std::size_t place_of(Gfn gfn) noexcept { return (gfn ^ (gfn >> 10)) % kPlaces; }

  const std::uint64_t hold_ns_;
  std::array<Recent, kPlaces> recent_;
  FutexLock lock_;
  std::array<Held, kRoom> ring_;       // GUARDED_BY(lock_)
  std::size_t first_ = 0, count_ = 0;  // GUARDED_BY(lock_)
};

}  // namespace xenspan::dsm
