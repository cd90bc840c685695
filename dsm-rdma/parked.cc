#include "dsm-rdma/parked.h"

#include <mutex>
#include <new>
#include <type_traits>

namespace xenspan::dsm {

ParkedMessages::ParkedMessages(std::uint32_t room)
    : room_(room), nodes_(static_cast<Node*>(std::calloc(std::size_t{room} + 1, sizeof(Node)))) {
  static_assert(std::is_trivially_copyable_v<Node>);
  if (nodes_ == nullptr) throw std::bad_alloc();
}

std::uint32_t ParkedMessages::take_free() noexcept {
  const std::lock_guard guard(free_lock_);
  const std::uint32_t index = free_;
  if (index == 0) return used_ < room_ ? ++used_ : 0;
  free_ = nodes_[index].next;
  return index;
}

void ParkedMessages::give_back(std::uint32_t index) noexcept {
  const std::lock_guard guard(free_lock_);
  nodes_[index].next = free_;
  free_ = index;
}

bool ParkedMessages::push(const ivy::Message& message) noexcept {
  const std::uint32_t index = take_free();
  if (index == 0) return false;
  nodes_[index] = {message, 0};
  Queue& queue = queue_of(message.gfn);
  const std::lock_guard guard(queue.lock);
  (queue.first == 0 ? queue.first : nodes_[queue.last].next) = index;
  queue.last = index;
  return true;
}

bool ParkedMessages::pop(Gfn gfn, ivy::Message& message) noexcept {
  std::uint32_t index, before = 0;
  {
    Queue& queue = queue_of(gfn);
    const std::lock_guard guard(queue.lock);
    for (index = queue.first; index != 0; before = index, index = nodes_[index].next) {
      if (nodes_[index].message.gfn == gfn) break;
    }
    if (index == 0) return false;
    message = nodes_[index].message;
    const std::uint32_t after = nodes_[index].next;
    (before == 0 ? queue.first : nodes_[before].next) = after;
    if (after == 0) queue.last = before;
  }
  give_back(index);
  return true;
}

std::size_t ParkedMessages::bytes() const noexcept {
  const std::lock_guard guard(free_lock_);
  return (std::size_t{used_} + 1) * sizeof(Node);
}

}  // namespace xenspan::dsm
