#include "dom0-daemon/hypervisor/usermode/futex_table.h"

#include <algorithm>
#include <iterator>

namespace xenspan::hypervisor::usermode {

std::vector<FutexTable::Waiter> FutexTable::all() const {
  std::vector<Waiter> list;
  for (const auto& [address, queue] : queues_) list.insert(list.end(), queue.begin(), queue.end());
  return list;
}

void FutexTable::enqueue(std::uint64_t address, std::uint32_t bitset, FutexTicket ticket) {
  std::list<Waiter>& queue = queues_[address];
  queue.push_back({ticket, bitset, address});
  index_[ticket] = std::prev(queue.end());
}

bool FutexTable::cancel(FutexTicket ticket) {
  const auto found = index_.find(ticket);
  if (found == index_.end()) return false;
  const std::uint64_t address = found->second->address;
  const auto queue = queues_.find(address);
  queue->second.erase(found->second);
  if (queue->second.empty()) queues_.erase(queue);
  index_.erase(found);
  return true;
}

std::vector<FutexTicket> FutexTable::wake(std::uint64_t address, unsigned count,
                                          std::uint32_t bitset) {
  std::vector<FutexTicket> woken;
  const auto found = queues_.find(address);
  if (found == queues_.end()) return woken;
  std::list<Waiter>& queue = found->second;
  for (auto it = queue.begin(); it != queue.end() && woken.size() < count;) {
    if ((it->bitset & bitset) == 0) {
      ++it;
      continue;
    }
    woken.push_back(it->ticket);
    index_.erase(it->ticket);
    it = queue.erase(it);
  }
  if (queue.empty()) queues_.erase(found);
  return woken;
}

std::vector<FutexTicket> FutexTable::requeue(std::uint64_t from, std::uint64_t to,
                                             unsigned wake_count, unsigned move_count,
                                             unsigned* moved) {
  std::vector<FutexTicket> woken = wake(from, wake_count, ~std::uint32_t{0});
  unsigned count = 0;
  const auto source = queues_.find(from);
  if (source != queues_.end() && from == to) {
    // They are where they shall be; Linux counts them as moved all the same.
    count = static_cast<unsigned>(std::min<std::size_t>(move_count, source->second.size()));
  } else if (source != queues_.end() && move_count > 0) {
    // Element references stay good when the table grows; iterators would not.
    std::list<Waiter>& queue = source->second;
    std::list<Waiter>& target = queues_[to];
    while (count < move_count && !queue.empty()) {
      queue.front().address = to;
      target.splice(target.end(), queue, queue.begin());
      ++count;
    }
    if (queue.empty()) queues_.erase(from);
  }
  if (moved != nullptr) *moved = count;
  return woken;
}

std::size_t FutexTable::waiting() const { return index_.size(); }

}  // namespace xenspan::hypervisor::usermode
