// The requests a slice has under way: a numbered place for each, so that an answer finds its waiter
// without a search.
//
// A lane has sixteen places, lane 0 has sixty-four that threads without a lane of their own take
// one by one, and up to 896 for requests whose answers the service thread takes (streams that run
// ahead, long ranges), as many as the wire has room for. A request's number (txn) holds its place
// and a count, so that an answer to an old request is never taken for one to the next in that
// place. Waiters of another thread's request for the same page sleep on a bell. Threading: any. No
// allocation after construction. After end() nobody sleeps here any more.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/ivy/page_state.h"
#include "dsm-rdma/types.h"

namespace xenspan::dsm {

// Sleeps until a word changes: polls briefly, because an answer usually takes tens of microseconds.
class SleepWord {
 public:
  std::uint32_t value() const noexcept { return word_.load(std::memory_order_seq_cst); }
  std::uint32_t exchange(std::uint32_t to) noexcept {
    return word_.exchange(to, std::memory_order_seq_cst);
  }
  void increment() noexcept { word_.fetch_add(1, std::memory_order_seq_cst); }
  void wake() noexcept {
    if (sleepers_.load(std::memory_order_seq_cst) != 0) futex_wake(word_, 1 << 30);
  }
  void wait_while(std::uint32_t seen, std::uint64_t spin_ns) noexcept {
    const std::uint64_t sleep_at = now_ns() + spin_ns;
    while (value() == seen) {
      if (now_ns() < sleep_at) {
        cpu_pause();
        continue;
      }
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      futex_wait(word_, seen);
      sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    }
  }

 private:
  std::atomic<std::uint32_t> word_{0};
  std::atomic<std::uint32_t> sleepers_{0};
};

// What a request is for.
enum class Purpose : std::uint8_t {
  kFault,    // a thread waits for it
  kDiscard,  // the page is to be empty
  kEarly,    // the thread will probably want it next
  kSample,   // the same, and whether it was right is to be found out (prefetch.h)
  kAhead,    // part of a stream, nobody waits for it; its place is free again when it is over
  kMarker,   // the same; its first touch shows that the stream goes on
  kRelease,  // a copy is given up; on an ahead place as well
};

class Requests {
 public:
  static constexpr unsigned kWindow = 16;  // places a lane
  static constexpr unsigned kLanes = 64;   // lane 0 included
  static constexpr unsigned kServicePlaces = 64;
  // For requests that nobody waits for: where their answers need buffers of their own, and at most.
  static constexpr unsigned kFewAheadPlaces = 256, kAheadPlaces = 896;
  static constexpr unsigned kFirstAhead = kLanes * kWindow + kServicePlaces;
  static constexpr unsigned kPlaces = kFirstAhead + kAheadPlaces;
  static constexpr std::uint64_t kSpinNs = 20'000;
  static constexpr Gfn kAnyPage = ~std::uint32_t{0};

  // `ahead`: places for requests that nobody waits for, a multiple of 64.
  explicit Requests(unsigned ahead = kAheadPlaces) noexcept
      : ahead_words_(std::min(ahead, kAheadPlaces) / 64) {}

  static unsigned place_of(Lane lane, unsigned position) noexcept {
    return lane * kWindow + position;
  }

  // A place for a thread whose requests go on lane 0; waits while all are taken. kPlaces after
  // end().
  unsigned take_service_place() noexcept {
    for (;;) {
      const std::uint32_t seen = service_bell_.value();
      if (ended()) return kPlaces;
      std::uint64_t free = service_free_.load(std::memory_order_relaxed);
      while (free != 0) {
        const std::uint64_t lowest = free & (~free + 1);
        if (service_free_.compare_exchange_weak(free, free & ~lowest, std::memory_order_acquire)) {
          return kLanes * kWindow + static_cast<unsigned>(std::countr_zero(lowest));
        }
      }
      service_bell_.wait_while(seen, kSpinNs);
    }
  }
  // A place for a request that nobody waits for, or kPlaces when none is free. complete() gives it
  // back.
  unsigned take_ahead_place() noexcept {
    for (unsigned word = 0; word < ahead_words_ && !ended(); ++word) {
      std::uint64_t taken = ahead_taken_[word].load(std::memory_order_relaxed);
      while (~taken != 0) {
        const std::uint64_t lowest = ~taken & (taken + 1);
        if (ahead_taken_[word].compare_exchange_weak(taken, taken | lowest,
                                                     std::memory_order_acquire))
          return kFirstAhead + word * 64 + static_cast<unsigned>(std::countr_zero(lowest));
      }
    }
    return kPlaces;
  }
  void give_ahead_place(unsigned place) noexcept {
    ahead_taken_[(place - kFirstAhead) / 64].fetch_and(
        ~(std::uint64_t{1} << (place - kFirstAhead) % 64), std::memory_order_release);
  }
  void give_service_place(unsigned place) noexcept {
    service_free_.fetch_or(std::uint64_t{1} << (place - kLanes * kWindow),
                           std::memory_order_release);
    service_bell_.increment();
    service_bell_.wake();
  }

  // A new request in this place. With the page's lock held, before the machine is told.
  std::uint32_t arm(unsigned place, Purpose purpose, Gfn gfn = kAnyPage) noexcept {
    const std::uint32_t count = next_.fetch_add(1, std::memory_order_relaxed);
    const std::uint32_t txn = place << kCountBits | (count & kCountMask);
    places_[place].purpose = purpose;
    places_[place].gfn = static_cast<std::uint32_t>(gfn);
    places_[place].giver = kNoHost;
    places_[place].givers = 0;
    places_[place].txn.exchange(txn);
    return txn;
  }
  // The whole number of this page's request, of which only the end is known; 0: there is none. With
  // the page's lock held.
  std::uint32_t find(std::uint32_t low, Gfn gfn) const noexcept {
    std::uint32_t likely = 0;
    for (const Place& place : places_) {
      const std::uint32_t txn = place.txn.value();
      if (txn == 0 || ivy::low_bits(txn) != low) continue;
      if (place.gfn == gfn) return txn;
      if (place.gfn == kAnyPage) likely = txn;
    }
    return likely;
  }
  void disarm(unsigned place) noexcept { places_[place].txn.exchange(0); }
  // Whether this request of ours is under way. With the page's lock held.
  bool under_way(std::uint32_t txn) const noexcept {
    const unsigned place = txn >> kCountBits;
    return txn != 0 && place < kPlaces && places_[place].txn.value() == txn;
  }
  // The number of the request in this place; 0: none.
  std::uint32_t txn(unsigned place) const noexcept { return places_[place].txn.value(); }
  bool pending(unsigned place) const noexcept { return places_[place].txn.value() != 0; }

  // What this request of ours is for; kFault when it is not known (any more). With the page's lock
  // held.
  Purpose purpose(std::uint32_t txn) const noexcept {
    return under_way(txn) ? places_[txn >> kCountBits].purpose : Purpose::kFault;
  }
  bool is_discard(std::uint32_t txn) const noexcept { return purpose(txn) == Purpose::kDiscard; }
  // A host gave its right up for this request of ours; who sends the contents counts before who
  // gives up a copy. With the page's lock held.
  void given(std::uint32_t txn, HostId host, bool contents) noexcept {
    if (!under_way(txn)) return;
    const unsigned place = txn >> kCountBits;
    if (places_[place].givers < 2) ++places_[place].givers;
    if (contents || places_[place].giver == kNoHost) places_[place].giver = host;
  }
  // For whoever armed the place, once its request is over.
  HostId giver(unsigned place) const noexcept { return places_[place].giver; }
  // Whether no more than one host was asked to give its right up.
  bool one_giver(unsigned place) const noexcept { return places_[place].givers < 2; }
  // The request is over. Its lane, whose waiter the caller wakes (kServiceLane: it has been woken
  // here).
  Lane complete(std::uint32_t txn) noexcept {
    if (!under_way(txn)) return kServiceLane;
    const unsigned place = txn >> kCountBits;
    places_[place].txn.exchange(0);
    if (place >= kFirstAhead) {
      give_ahead_place(place);
      return kServiceLane;
    }
    if (place < kLanes * kWindow) return static_cast<Lane>(place / kWindow);
    places_[place].txn.wake();
    return kServiceLane;
  }
  // A release of which only the end of its number is known. Should another one of 2^16 requests
  // before be under way still, its place may be given back in this one's stead: nobody waits there,
  // and its own end finds nothing to do then.
  Lane complete_release(std::uint32_t low) noexcept {
    for (unsigned place = kFirstAhead; place < kPlaces; ++place) {
      const std::uint32_t txn = places_[place].txn.value();
      if (txn == 0 || places_[place].purpose != Purpose::kRelease || ivy::low_bits(txn) != low)
        continue;
      return complete(txn);
    }
    return kServiceLane;
  }
  // For a request on lane 0.
  void wait_service(unsigned place) noexcept {
    const std::uint32_t txn = places_[place].txn.value();
    if (txn != 0 && !ended()) places_[place].txn.wait_while(txn, kSpinNs);
  }

  // Where those wait who find another local request for the same page. bell() with the page's lock
  // held.
  SleepWord& bell(Gfn gfn) noexcept { return bells_[(gfn ^ (gfn >> 8)) % bells_.size()]; }

  // All of them look again.
  void ring_all() noexcept {
    for (SleepWord& each : bells_) {
      each.increment();
      each.wake();
    }
  }

  bool ended() const noexcept { return ended_.load(std::memory_order_seq_cst); }
  void end() noexcept {
    ended_.store(true, std::memory_order_seq_cst);
    for (Place& place : places_) {
      place.txn.exchange(0);
      place.txn.wake();
    }
    ring_all();
    service_bell_.increment();
    service_bell_.wake();
  }

 private:
  static constexpr unsigned kCountBits = 21;
  static constexpr std::uint32_t kCountMask = (1u << kCountBits) - 1;
  static_assert(kPlaces < 1u << (32 - kCountBits));
  struct Place {
    SleepWord txn;                             // 0: no request, or it is over
    std::atomic<std::uint32_t> gfn{kAnyPage};  // 32 bits: PageTable::kMaxPages
    Purpose purpose = Purpose::kFault;         // GUARDED_BY the page's lock
    std::uint8_t givers = 0;                   // the same; two are many
    HostId giver = kNoHost;                    // the same, until the request is over
  };
  std::array<Place, kPlaces> places_;
  std::array<SleepWord, 256> bells_;
  SleepWord service_bell_;
  std::atomic<std::uint64_t> service_free_{~std::uint64_t{0}};
  const unsigned ahead_words_;
  std::array<std::atomic<std::uint64_t>, kAheadPlaces / 64> ahead_taken_{};
  std::atomic<std::uint32_t> next_{1};
  std::atomic<bool> ended_{false};
};

}  // namespace xenspan::dsm
