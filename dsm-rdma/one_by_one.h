// Invalidations in turn: the order in which other systems tell the holders of read copies, kept
// here to compare with (Feature::kParallel switched off).
//
// GiantVM's DSM (virt/kvm/dsm.c, ivy.c: kvm_dsm_invalidate) sends each invalidation and waits for
// its answer before the next. Here the page's manager lets the first of a transaction's kInvalidate
// out and keeps the others; the holder's kInvalidateAck goes to the requester as always, and a copy
// of it to the manager, which then lets the next one out. The machine (ivy/) sees nothing of this:
// it asks for no order between messages, so that one that waits here is a late one. No cycle of
// waits comes from it: an invalidation waits for holders of its own transaction, and those for
// transactions before it.
//
// Threading: any; calls for one gfn are made with that page's lock held. No allocation.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <mutex>

#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/ivy/message.h"

namespace xenspan::dsm {

class OneByOne {
 public:
  // Whether this invalidation may go now; otherwise it is kept. It goes at once, too, when there is
  // no room.
  bool admit(const ivy::Message& invalidate) noexcept {
    const std::lock_guard guard(lock_);
    if (size_ == kRoom) return true;
    const bool first = std::none_of(begin(), end(), [&](const ivy::Message& each) {
      return same_transaction(each, invalidate);
    });
    kept_[size_++] = invalidate;  // the first stands for the one that is under way
    return first;
  }
  // The one under way in the transaction of `ack` has been answered. true: `next` is to go now.
  bool next(const ivy::Message& ack, ivy::Message& next) noexcept {
    const std::lock_guard guard(lock_);
    const auto same = [&](const ivy::Message& each) { return same_transaction(each, ack); };
    ivy::Message* const over = std::find_if(begin(), end(), same);
    if (over == end()) return false;
    std::copy(over + 1, end(), over);
    --size_;
    const ivy::Message* const found = std::find_if(over, end(), same);
    if (found == end()) return false;
    next = *found;
    return true;
  }

 private:
  static constexpr std::size_t kRoom = 512;
  static bool same_transaction(const ivy::Message& a, const ivy::Message& b) noexcept {
    return a.gfn == b.gfn && a.requester == b.requester && a.txn == b.txn;
  }
  ivy::Message* begin() noexcept { return kept_.data(); }
  ivy::Message* end() noexcept { return kept_.data() + size_; }

  FutexLock lock_;
  std::array<ivy::Message, kRoom> kept_;  // GUARDED_BY(lock_), in the order they came
  std::size_t size_ = 0;                  // GUARDED_BY(lock_)
};

}  // namespace xenspan::dsm
