// Nodes for requests that wait at a busy manager: a fixed number, shared by all pages of a slice.
//
// The manager keeps, per page, the index of the last waiting request (`tail`, 0 when none waits);
// the last one points at the first, so a queue needs one index. Threading: any number of threads;
// calls for one tail must not overlap (the page's lock bit sees to that). push() and pop() are
// lock-free and allocate nothing: the free list is a stack whose head carries a tag against ABA.
// Size it as hosts x requests a host may have in flight; then push() fails only for a peer that
// exceeds its share.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "dsm-rdma/ivy/message.h"

namespace xenspan::dsm::ivy {

struct Waiter {
  std::uint32_t txn = 0;
  Lane lane = kServiceLane;
  HostId requester = 0;
  Kind kind = Kind::kReadRequest;  // kReadRequest or kWriteRequest
  bool discard = false;

  friend bool operator==(const Waiter&, const Waiter&) = default;
};

class WaitPool {
 public:
  static constexpr std::uint32_t kMaxNodes = (1u << 22) - 1;  // PageState::queue_tail has 22 bits

  // Room for `nodes` waiting requests (at most kMaxNodes). The only place that allocates.
  explicit WaitPool(std::uint32_t nodes);
  WaitPool(const WaitPool&) = delete;
  WaitPool& operator=(const WaitPool&) = delete;

  // Appends; returns the new tail, or 0 when no node is free (the queue is unchanged).
  std::uint32_t push(std::uint32_t tail, const Waiter& waiter) noexcept;
  // Takes the first of a queue that is not empty into `waiter`; returns the new tail.
  std::uint32_t pop(std::uint32_t tail, Waiter& waiter) noexcept;
  // The waiting request of this host, or nullptr. Walks the queue: at most one entry a host.
  const Waiter* find(std::uint32_t tail, HostId requester) const noexcept;

  std::uint32_t capacity() const noexcept { return nodes_count_; }

 private:
  struct Node {
    std::atomic<std::uint32_t> next{
        0};  // atomic: take() may read it while another thread reuses the node
    Waiter waiter;
  };
  std::uint32_t take() noexcept;
  void give_back(std::uint32_t index) noexcept;

  std::uint32_t nodes_count_;
  std::unique_ptr<Node[]> nodes_;       // index 0 is never used: it means none
  std::atomic<std::uint64_t> free_{0};  // tag << 32 | index of the first free node
};

}  // namespace xenspan::dsm::ivy
