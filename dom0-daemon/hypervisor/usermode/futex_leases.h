// Wakes that find nobody: a remote slice that keeps waking a word at which no thread waits (a
// barrier that is left by spinning, a lock nobody contends for) is told so, and answers the next
// ones itself.
//
// Such a lease says: nobody waits at this address. The home gives it after some wakes in a row that
// found nobody, and takes it back from every holder before a thread that wants to wait there goes
// on; that thread then looks at the word once more (futex_table.h). So a waker that read the lease
// before it was taken back had changed the word before, and the waiter sees it. Each time a lease
// had to be taken back, twice as many wakes have to find nobody before the next one.
//
// Two halves: FutexLeases at the home, IdleFutexes in the slice. Answers to wakes and the taking
// back travel on different streams: versions put them in order.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/types.h"

namespace xenspan::hypervisor::usermode {

inline constexpr std::size_t kFutexLeases = 256;  // addresses; they are hashed into places
constexpr std::size_t futex_lease_place(std::uint64_t address) {
  return (address * 0x9e3779b97f4a7c15 >> 32) % kFutexLeases;
}

// Not thread-safe: the home's lock covers it together with the queues.
class FutexLeases {
 public:
  // A wake from this host found nobody, and nobody waits there. The version of the lease given; 0:
  // none.
  std::uint64_t on_idle_wake(std::uint64_t address, dsm::HostId host);
  // A thread waits there now. Whose leases are to be taken back, before it is told so.
  struct TakeBack {
    dsm::HostMask hosts = 0;
    std::uint64_t version = 0;
  };
  TakeBack on_wait(std::uint64_t address);
  // For a home whose role moves: who holds leases, and the newest version. Nothing is leased to the
  // home's own host.
  struct State {
    std::uint64_t version = 0;
    std::vector<std::pair<std::uint64_t, dsm::HostMask>> holders;  // by address
  };
  State state() const;
  void take(const State& state);  // into new ones

 private:
  static constexpr unsigned kFirst = 4, kMost = 1024;  // wakes in a row that find nobody
  struct Place {
    std::uint64_t address = 0;
    dsm::HostMask holders = 0;
    unsigned idle = 0, wanted = kFirst;
  };
  std::array<Place, kFutexLeases> places_;
  std::uint64_t version_ = 0;
};

// Threading: any.
class IdleFutexes {
 public:
  // Whether a wake there finds nobody. The word has been changed before this is called; what makes
  // the change visible first is the lock's atomic instruction.
  bool idle(std::uint64_t address);
  void lease(std::uint64_t address, std::uint64_t version);
  void take_back(std::uint64_t address, std::uint64_t version);
  // All that were given up to this version.
  void take_back_all(std::uint64_t version);

 private:
  struct Place {
    dsm::FutexLock lock;
    bool idle = false;             // GUARDED_BY(lock)
    std::uint64_t address = 0;     // GUARDED_BY(lock)
    std::uint64_t taken_back = 0;  // the newest, of any address. GUARDED_BY(lock)
  };
  std::array<Place, kFutexLeases> places_;
};

}  // namespace xenspan::hypervisor::usermode
