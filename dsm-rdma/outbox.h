// Messages that one thread has to send and has not sent yet, so that several travel with one system
// call.
//
// Waiting here is legal: the protocol asks for no order between messages, and the frame of a page
// in here does not change before its requester has it (after a read forward the page is read-only
// here, after a write forward it is withdrawn, and nobody gets the right to change it before the
// requester), but for one thing: a frame may be given back by a discard; whoever does that looks
// for such pages first (EngineCore::drop_for). It is never long: whoever fills an outbox empties it
// before he waits for anything, at the end of each receive round, and when it is full.
// Threading: one thread's. No allocation: it lives on the stack of a fault, so nothing is cleared.
#pragma once

#include <cstddef>
#include <memory>

#include "dsm-rdma/transport/transport.h"

namespace xenspan::dsm {

class Outbox {
 public:
  static constexpr std::size_t kRoom = 64;   // messages, or runs of them
  static constexpr std::size_t kPages = 32;  // pages among them: twice what TCP segments at once

  Outbox() noexcept {}
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;

  bool empty() const noexcept { return size_ == 0; }
  bool full() const noexcept { return size_ == kRoom || pages_ == kPages; }
  // Only when it is not full. Like messages about neighbouring pages take the room of one.
  void put(const ivy::Message& message, const std::byte* page) noexcept {
    if (page == nullptr && size_ > 0 && messages_[size_ - 1].run.take(message)) return;
    std::construct_at(messages_ + size_++, Outgoing{wire::Run(message), page});
    if (page != nullptr) ++pages_;
  }
  // How many pages are still to be read from their frames.
  std::size_t pages() const noexcept { return pages_; }
  const Outgoing* messages() const noexcept { return messages_; }
  std::size_t size() const noexcept { return size_; }
  void clear() noexcept { size_ = pages_ = 0; }
  // Messages of one kind about neighbouring pages behind each other, so that whoever gets them can
  // deal with the pages together (engine_runs.cc). Mostly in order already.
  void sort() noexcept {
    const auto before = [](const ivy::Message& one, const ivy::Message& other) {
      if (one.to != other.to) return one.to < other.to;
      return one.kind != other.kind ? one.kind < other.kind : one.gfn < other.gfn;
    };
    for (std::size_t i = 1; i < size_; ++i) {
      const Outgoing moved = messages_[i];
      std::size_t at = i;
      for (; at > 0 && before(moved.run.first, messages_[at - 1].run.first); --at)
        messages_[at] = messages_[at - 1];
      messages_[at] = moved;
    }
  }

 private:
  union {
    Outgoing messages_[kRoom];
  };
  std::size_t size_ = 0, pages_ = 0;
};

}  // namespace xenspan::dsm
