// The hold window (I3): which pages were granted a moment ago, and the messages that would take
// them away too soon.
//
// A page that has just come is kept for a window, so that whoever asked for it gets to use it and
// two hosts that fight for it both advance. (Fleisch and Popek, Mirage: A Coherent Distributed
// Shared Memory Design, SOSP 1989: a page stays with its site for a time Delta. They leave its
// choice to an administrator; here each host finds it out for each page.) What can be seen is what
// happens after a page was given up. When this host wants to write it again at once, it was still
// at work: the next window is twice as long, up to kMostNs. When it wants it later, or only to read
// it (it waits for a value that another host writes: a lock, a flag, a barrier), the window only
// kept the other host waiting: the next one is half as long, down to `least_us`. That is enough
// for the instruction that faulted; where it was not, the fault comes again at once, and the window
// grows. A read copy is kept for `least_us`: others may read at the same time, and a writer should
// not wait.
//
// Recent grants are kept in a small table without locks; when two pages meet in one place the older
// loses its window, which costs time and never correctness. Held messages wait in a list of fixed
// size, the one that is due first at its head. Threading: any. No allocation after construction.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/ivy/message.h"

namespace xenspan::dsm {

class HoldQueue {
 public:
  // `hold_us`: the first window of a page; 0: no windows at all. `least_us`: where vCPUs share a
  // processor, as long as one waits for its turn.
  explicit HoldQueue(unsigned hold_us, unsigned least_us = 5)
      : first_ns_(std::uint64_t{hold_us} * 1000),
        least_ns_(std::uint64_t{least_us} * 1000),
        most_ns_(std::max({first_ns_, least_ns_, kMostNs})) {}

  void granted(Gfn gfn, Right right) noexcept {
    if (first_ns_ == 0) return;
    Recent& recent = recent_[place_of(gfn)];
    if (recent.gfn.load(std::memory_order_relaxed) != gfn) {
      recent.gfn.store(gfn, std::memory_order_relaxed);
      recent.window_ns.store(first_ns_, std::memory_order_relaxed);
      recent.lost_ns.store(0, std::memory_order_relaxed);
    }
    const std::uint64_t window = recent.window_ns.load(std::memory_order_relaxed);
    const std::uint64_t keep = right == Right::kExclusive ? window : std::min(window, least_ns_);
    recent.until_ns.store(now_ns() + keep, std::memory_order_relaxed);
  }

  // A right to the page is given up.
  void lost(Gfn gfn) noexcept {
    Recent& recent = recent_[place_of(gfn)];
    if (first_ns_ != 0 && recent.gfn.load(std::memory_order_relaxed) == gfn)
      recent.lost_ns.store(now_ns(), std::memory_order_relaxed);
  }

  // A vCPU here has touched the page to read or to write it, and has to ask for that right.
  void wanted(Gfn gfn, Right right, std::uint64_t now_ns) noexcept {
    Recent& recent = recent_[place_of(gfn)];
    if (first_ns_ == 0 || recent.gfn.load(std::memory_order_relaxed) != gfn) return;
    const std::uint64_t lost = recent.lost_ns.exchange(0, std::memory_order_relaxed);
    if (lost == 0) return;
    const std::uint64_t window = recent.window_ns.load(std::memory_order_relaxed);
    const bool at_work = right == Right::kExclusive && now_ns < lost + kAtOnceNs;
    recent.window_ns.store(
        at_work ? std::min(window * 2, most_ns_) : std::max(window / 2, least_ns_),
        std::memory_order_relaxed);
  }

  // Until when the page is to be kept, or 0. Never more than the window from now, whatever was read
  // in between.
  std::uint64_t keep_until(Gfn gfn) const noexcept {
    const Recent& recent = recent_[place_of(gfn)];
    const std::uint64_t until = recent.until_ns.load(std::memory_order_relaxed);
    if (until == 0 || recent.gfn.load(std::memory_order_relaxed) != gfn) return 0;
    return until > now_ns() ? until : 0;
  }

  // The page's window as it is now, or 0 when nothing is known of the page.
  std::uint64_t window_ns(Gfn gfn) const noexcept {
    const Recent& recent = recent_[place_of(gfn)];
    return recent.gfn.load(std::memory_order_relaxed) == gfn
               ? recent.window_ns.load(std::memory_order_relaxed)
               : 0;
  }

  // false when there is no room: the message is then to be handled at once.
  bool push(const ivy::Message& message, std::uint64_t due_ns) noexcept {
    return push(message, due_ns, kMessage, kRoom);
  }
  // The same for something of this host's own to be done later; with others of that kind it may be
  // done `early_ns` before. Half of the room is not for these.
  bool remind(const ivy::Message& message, std::uint64_t due_ns, std::uint64_t early_ns) noexcept {
    return push(message, due_ns, early_ns, kRoom / 2);
  }
  // After pop_due() returned a reminder: takes another one that may be done now.
  bool pop_with(ivy::Message& message) noexcept {
    const std::lock_guard guard(lock_);
    const std::uint64_t now = now_ns();
    for (std::size_t at = 0; at < count_; ++at) {
      if (place(at).early_ns == kMessage || place(at).due_ns > now + place(at).early_ns) continue;
      message = place(at).message;
      for (; at > 0; --at) place(at) = place(at - 1);
      first_ = (first_ + 1) % kRoom;
      --count_;
      return true;
    }
    return false;
  }

  // Whether a message waits here; what this host only means to do does not count.
  bool holds_message() noexcept {
    const std::lock_guard guard(lock_);
    for (std::size_t at = 0; at < count_; ++at)
      if (place(at).early_ns == kMessage) return true;
    return false;
  }
  // Takes the first message when it is due. Otherwise false, and the nanoseconds until it is, or -1
  // when there is none.
  bool pop_due(ivy::Message& message, long& wait_ns) noexcept {
    const std::lock_guard guard(lock_);
    wait_ns = -1;
    if (count_ == 0) return false;
    const std::uint64_t now = now_ns(), due = place(0).due_ns;
    if (due > now) {
      wait_ns = static_cast<long>(due - now);
      return false;
    }
    message = place(0).message;
    first_ = (first_ + 1) % kRoom;
    --count_;
    return true;
  }

 private:
  static constexpr std::uint64_t kMostNs = 500'000, kAtOnceNs = 100'000;
  static constexpr std::size_t kPlaces = 1024, kRoom = 256;
  static constexpr std::uint64_t kMessage = ~std::uint64_t{0};  // in place of early_ns
  struct Recent {
    std::atomic<Gfn> gfn{~Gfn{0}};  // no page
    std::atomic<std::uint64_t> until_ns{0};
    std::atomic<std::uint64_t> window_ns{0};
    std::atomic<std::uint64_t> lost_ns{0};  // not wanted again since
  };
  struct Held {
    ivy::Message message;
    std::uint64_t due_ns, early_ns;
  };
  static std::size_t place_of(Gfn gfn) noexcept { return (gfn ^ (gfn >> 10)) % kPlaces; }
  bool push(const ivy::Message& message, std::uint64_t due_ns, std::uint64_t early_ns,
            std::size_t room) noexcept {
    const std::lock_guard guard(lock_);
    if (count_ >= room) return false;
    // Windows differ little and few messages wait: usually the place is at the end.
    std::size_t at = count_++;
    for (; at > 0 && place(at - 1).due_ns > due_ns; --at) place(at) = place(at - 1);
    place(at) = {message, due_ns, early_ns};
    return true;
  }
  Held& place(std::size_t index) noexcept { return ring_[(first_ + index) % kRoom]; }

  const std::uint64_t first_ns_, least_ns_, most_ns_;
  std::array<Recent, kPlaces> recent_;
  FutexLock lock_;
  std::array<Held, kRoom> ring_;       // GUARDED_BY(lock_)
  std::size_t first_ = 0, count_ = 0;  // GUARDED_BY(lock_)
};

}  // namespace xenspan::dsm
