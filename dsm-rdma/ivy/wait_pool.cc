#include "dsm-rdma/ivy/wait_pool.h"

#include <algorithm>

namespace xenspan::dsm::ivy {
namespace {

constexpr std::uint32_t index_of(std::uint64_t head) { return static_cast<std::uint32_t>(head); }

// Every change of the free list's head gets a new tag, so that a head seen before is never mistaken
// for the same list.
constexpr std::uint64_t next_head(std::uint64_t head, std::uint32_t index) {
  return ((head >> 32) + 1) << 32 | index;
}

}  // namespace

WaitPool::WaitPool(std::uint32_t nodes)
    : nodes_count_(std::min(nodes, kMaxNodes)),
      nodes_(std::make_unique<Node[]>(std::size_t{nodes_count_} + 1)) {
  for (std::uint32_t index = nodes_count_; index > 0; --index) give_back(index);
}

std::uint32_t WaitPool::take() noexcept {
  std::uint64_t head = free_.load(std::memory_order_acquire);
  while (index_of(head) != 0) {
    const std::uint32_t next = nodes_[index_of(head)].next.load(std::memory_order_relaxed);
    if (free_.compare_exchange_weak(head, next_head(head, next), std::memory_order_acquire)) {
      return index_of(head);
    }
  }
  return 0;
}

void WaitPool::give_back(std::uint32_t index) noexcept {
  std::uint64_t head = free_.load(std::memory_order_relaxed);
  do {
    nodes_[index].next.store(index_of(head), std::memory_order_relaxed);
  } while (!free_.compare_exchange_weak(head, next_head(head, index), std::memory_order_acq_rel));
}

std::uint32_t WaitPool::push(std::uint32_t tail, const Waiter& waiter) noexcept {
  const std::uint32_t index = take();
  if (index == 0) return 0;
  Node& node = nodes_[index];
  node.waiter = waiter;
  if (tail == 0) {
    node.next.store(index, std::memory_order_relaxed);
  } else {
    node.next.store(nodes_[tail].next.load(std::memory_order_relaxed), std::memory_order_relaxed);
    nodes_[tail].next.store(index, std::memory_order_relaxed);
  }
  return index;
}

std::uint32_t WaitPool::pop(std::uint32_t tail, Waiter& waiter) noexcept {
  const std::uint32_t first = nodes_[tail].next.load(std::memory_order_relaxed);
  waiter = nodes_[first].waiter;
  const std::uint32_t second = nodes_[first].next.load(std::memory_order_relaxed);
  if (first != tail) nodes_[tail].next.store(second, std::memory_order_relaxed);
  give_back(first);
  return first == tail ? 0 : tail;
}

const Waiter* WaitPool::find(std::uint32_t tail, HostId requester) const noexcept {
  if (tail == 0) return nullptr;
  std::uint32_t index = tail;
  do {
    if (nodes_[index].waiter.requester == requester) return &nodes_[index].waiter;
    index = nodes_[index].next.load(std::memory_order_relaxed);
  } while (index != tail);
  return nullptr;
}

}  // namespace xenspan::dsm::ivy
