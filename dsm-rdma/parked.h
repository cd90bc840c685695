// Messages that the machine called early (ivy/machine.h), kept until their page has got so far.
//
// Queues by page in a small table, nodes from a pool of fixed size; a page's messages stay in the
// order they came. Threading: any; calls for one gfn must not overlap (the page's lock bit sees to
// that). No allocation after construction; a lock is shared by the pages of one queue, which are
// hardly ever parked at the same time. Size it as hosts x requests a host may have in flight: each
// request makes at most one message to this host; then push() fails only for a peer that exceeds
// its share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/ivy/message.h"

namespace xenspan::dsm {

class ParkedMessages {
 public:
  // Room for `room` messages. The only place that allocates: addresses, of which memory follows the
  // most that were ever parked at a time.
  explicit ParkedMessages(std::uint32_t room);
  ParkedMessages(const ParkedMessages&) = delete;
  ParkedMessages& operator=(const ParkedMessages&) = delete;

  // false: no room.
  bool push(const ivy::Message& message) noexcept;
  // Takes the page's oldest message; false when it has none.
  bool pop(Gfn gfn, ivy::Message& message) noexcept;
  // Of the nodes, so far.
  std::size_t bytes() const noexcept;

 private:
  struct Node {
    ivy::Message message;
    std::uint32_t next = 0;
  };

 public:
  static constexpr std::size_t kNodeBytes = sizeof(Node);

 private:
  struct Queue {
    FutexLock lock;
    std::uint32_t first = 0, last = 0;  // GUARDED_BY(lock); 0: empty
  };
  Queue& queue_of(Gfn gfn) noexcept { return queues_[(gfn ^ (gfn >> 8)) % queues_.size()]; }
  std::uint32_t take_free() noexcept;
  void give_back(std::uint32_t index) noexcept;

  struct Free {
    void operator()(Node* nodes) const noexcept { std::free(nodes); }
  };
  const std::uint32_t room_;
  std::unique_ptr<Node[], Free> nodes_;  // index 0 is never used: it means none
  std::array<Queue, 256> queues_;
  mutable FutexLock free_lock_;
  std::uint32_t free_ = 0;  // GUARDED_BY(free_lock_): first of the list of free nodes
  std::uint32_t used_ = 0;  // GUARDED_BY(free_lock_): the nodes after this one were never used
};

}  // namespace xenspan::dsm
