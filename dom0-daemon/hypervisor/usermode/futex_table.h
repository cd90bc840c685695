// Who waits at which futex word: the queues of futex(2), kept at the home for all threads of the
// domain.
//
// A waiter enqueues first and looks at the word afterwards, on its own host (eventcount order), so
// that no page travels to the home: enqueue -> read the word here -> when it differs, cancel; else
// sleep until woken. This is right because guest memory is sequentially consistent and a waker
// changes the word before it calls wake(). A pure data structure: wake() and requeue() return the
// tickets to wake; the caller delivers. Not thread-safe.
#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

namespace xenspan::hypervisor::usermode {

using FutexTicket = std::uint64_t;  // names one wait of one thread; the caller chooses it, never 0,
                                    // never reused while queued

class FutexTable {
 public:
  void enqueue(std::uint64_t address, std::uint32_t bitset, FutexTicket ticket);
  // true: it was still queued and is no longer. false: it has been woken (the wake counts as this
  // waiter's).
  bool cancel(FutexTicket ticket);
  // First come, first woken, among waiters whose bitset overlaps.
  std::vector<FutexTicket> wake(std::uint64_t address, unsigned count, std::uint32_t bitset);
  // FUTEX_REQUEUE: wakes `wake_count`, moves up to `move_count` of the rest to `to`; `moved` gets
  // how many.
  std::vector<FutexTicket> requeue(std::uint64_t from, std::uint64_t to, unsigned wake_count,
                                   unsigned move_count, unsigned* moved);
  std::size_t waiting() const;
  struct Waiter {
    FutexTicket ticket;
    std::uint32_t bitset;
    std::uint64_t address;
  };
  // Each queue in its order.
  std::vector<Waiter> all() const;
  bool anyone_at(std::uint64_t address) const { return queues_.contains(address); }

 private:
  std::unordered_map<std::uint64_t, std::list<Waiter>> queues_;
  std::unordered_map<FutexTicket, std::list<Waiter>::iterator> index_;
};

}  // namespace xenspan::hypervisor::usermode
