// Credit: how many messages a peer can still take, which of its bounce frames are free, and what
// has to wait.
//
// The receiver counts the messages it has taken and now and then writes the count into the sender's
// memory: 32 bits that wrap, which the sender extends, since never more than its window is in
// flight. Messages are taken in the order sent, so one count also says which bounce frames are free
// again. No locks, no allocation after construction; the sender's half is used under its queue
// pair's lock, the receiver's by the lane's reader. Internal to transport/verbs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "dsm-rdma/transport/verbs/envelope.h"

namespace xenspan::dsm::verbs {

class SendWindow {
 public:
  // `buffers`: receive buffers of the peer.
  SendWindow(std::uint32_t buffers, std::uint32_t bounce_frames)
      : buffers_(buffers), free_after_(bounce_frames) {}

  // `taken`: the count the peer has written last. false: more than was ever sent, or less than it
  // said before.
  bool hear(std::uint32_t taken) noexcept {
    const std::uint32_t in_flight = static_cast<std::uint32_t>(sent_) - taken;
    if (in_flight > sent_ - taken_) return false;
    taken_ = sent_ - in_flight;
    return true;
  }
  bool may_send() const noexcept { return sent_ - taken_ < buffers_; }
  // The last page in the bounce frame whose turn it is has been taken from it.
  bool bounce_free() const noexcept {
    return !free_after_.empty() && taken_ >= free_after_[next_bounce_];
  }
  std::uint32_t next_bounce() const noexcept { return next_bounce_; }
  // One message goes out; with a page in next_bounce() or without.
  void count(bool bounce) noexcept {
    ++sent_;
    if (!bounce) return;
    free_after_[next_bounce_] = sent_;
    next_bounce_ = next_bounce_ + 1 == free_after_.size() ? 0 : next_bounce_ + 1;
  }

 private:
  std::uint32_t buffers_;
  std::uint64_t sent_ = 0, taken_ = 0;
  std::uint32_t next_bounce_ = 0;
  std::vector<std::uint64_t> free_after_;  // the count that frees each bounce frame
};

class ReceiveCount {
 public:
  // The peer is told often enough that it does not wait for buffers that are long free.
  ReceiveCount(std::uint32_t buffers, std::uint32_t bounce_frames)
      : step_(std::max(1u, (bounce_frames == 0 ? buffers : std::min(buffers, bounce_frames)) / 4)) {
  }
  // One more has been taken and its buffer posted again. true: tell the peer taken().
  bool count() noexcept {
    ++taken_;
    if (taken_ - told_ < step_) return false;
    told_ = taken_;
    return true;
  }
  std::uint32_t taken() const noexcept { return taken_; }

 private:
  const std::uint32_t step_;
  std::uint32_t taken_ = 0, told_ = 0;
};

// Messages that found no credit, in the order sent. Nothing is allocated after construction, and
// what is never used is never touched. Under the queue pair's lock.
class Backlog {
 public:
  explicit Backlog(std::uint32_t capacity)
      : capacity_(capacity),
        messages_(
            std::make_unique_for_overwrite<std::byte[]>(std::size_t{capacity} * kContentsBytes)) {}
  std::uint32_t capacity() const noexcept { return capacity_; }
  bool empty() const noexcept { return count_ == 0; }
  bool full() const noexcept { return count_ == capacity_; }
  // Room for one more, to be written at once; not when it is full.
  std::byte* put() noexcept { return at((first_ + count_++) % capacity_); }
  // The oldest; read it before the next put(). Not when it is empty.
  const std::byte* take() noexcept {
    const std::byte* oldest = at(first_);
    first_ = (first_ + 1) % capacity_;
    --count_;
    return oldest;
  }

 private:
  std::byte* at(std::uint32_t index) noexcept {
    return messages_.get() + std::size_t{index} * kContentsBytes;
  }

  const std::uint32_t capacity_;
  const std::unique_ptr<std::byte[]> messages_;
  std::uint32_t first_ = 0, count_ = 0;
};

}  // namespace xenspan::dsm::verbs
