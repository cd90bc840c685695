// The coherence engine of one slice: page table, locks, waiting threads, statistics around the pure
// machine in ivy/.
//
// One Engine a slice. The hypervisor backend calls acquire() in the faulting thread; a service
// thread runs serve(). Threading: acquire*(), right(), stop() from any thread; serve() from one. No
// lock is shared between gfns: each page entry has its own lock bit. No allocation after create(),
// but for the sentence of stop() and for stats(). Frames: whoever writes a frame by
// PageBackend::frame() holds the exclusive right by acquire() or acquire_range() first; a frame
// that was never acquired counts as zero, is sent as such and is not emptied by discard().
// Ownership: backend and transport are borrowed and must outlive the engine.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "dsm-rdma/features.h"
#include "dsm-rdma/holdings.h"
#include "dsm-rdma/membership.h"
#include "dsm-rdma/page_backend.h"
#include "dsm-rdma/sharing.h"
#include "dsm-rdma/survival.h"
#include "dsm-rdma/transport/transport.h"
#include "dsm-rdma/types.h"

namespace xenspan::dsm {

struct EngineConfig {
  HostId self = 0;
  HostId home = 0;          // has all pages at the start; kNoHost: it has left (forget_home())
  unsigned hosts = 1;       // 0 .. hosts-1 are there at the start, and manage the slots
  unsigned most_hosts = 0;  // every host that may join has a number below this; 0: `hosts`
  HostMask members = 0;     // who is there, where some numbers below `hosts` are nobody's; 0: all
  Gfn pages = 0;            // gfns 0 .. pages-1; the table is sparse, memory follows use
  Epoch epoch = 1;
  unsigned hold_us =
      20;  // a granted page is kept at least this long before it is given up (I3), microseconds
  unsigned least_hold_us = 5;  // no window gets shorter, however it turns out (hold_queue.h)
  unsigned prefetch =
      kMostPrefetch;     // pages asked for with a fault's own, at most (prefetch.h); 0: none
  FeatureSet without{};  // the same in all engines of a domain
  std::vector<std::string>
      names{};  // of the hosts, for error messages; their numbers are used when empty
  // A peer's connection is gone, `why` is a sentence; from the service thread. Empty: the engine
  // stops instead. Otherwise somebody decides what is to become of the domain (survival.h), or
  // stops it.
  std::function<void(HostId peer, const char* why)> on_peer_lost{};
};

enum class Outcome : std::uint8_t {
  kGranted,  // the right is in the guest's mapping (it may be lost again at once: the vCPU retries
             // its instruction)
  kStopped,  // the domain has stopped; stop_cause() says why
};

enum class FaultKind : std::uint8_t { kFirstTouch, kRead, kWrite, kUpgrade, kCount };

struct LatencyHistogram {  // bucket i counts latencies in [2^i, 2^(i+1)) ns
  std::array<std::uint64_t, 40> buckets{};
};

struct EngineStats {
  std::array<std::uint64_t, static_cast<std::size_t>(FaultKind::kCount)> faults{};
  std::array<LatencyHistogram, static_cast<std::size_t>(FaultKind::kCount)> latency{};
  std::uint64_t served_reads = 0, served_writes = 0, invalidations = 0, zero_grants = 0,
                held_back = 0;
  std::uint64_t batches = 0;     // times that messages were handed to the transport, one or several
  std::uint64_t prefetched = 0;  // pages asked for before they were touched
  std::uint64_t prefetch_sampled = 0;  // of these, looked at more closely ..
  std::uint64_t prefetch_used = 0;     // .. and found to be touched before they were lost
  std::uint64_t migratory = 0;         // read faults that asked for the exclusive right
  std::uint64_t remaps =
      0;  // faults on a page that was held already (after unmap(), or another vCPU was faster)
  Transport::Traffic traffic{};
  struct HotPage {
    Gfn gfn;
    std::uint32_t faults;
  };
  std::vector<HotPage> hottest;                      // most faulted first
  std::uint64_t pages_touched = 0, table_bytes = 0;  // of the entries' chunks that are in use
  std::uint64_t engine_bytes = 0;  // of all else: it does not grow with the domain's memory
};

class Engine : public Membership, public Survival {
 public:
  // on_stop is called once, from the thread that found the cause (any thread); it must not call
  // back into the engine.
  static Result<std::unique_ptr<Engine>> create(const EngineConfig& config, PageBackend& backend,
                                                Transport& transport,
                                                std::function<void(const std::string&)> on_stop);
  virtual ~Engine() = default;

  // Ends when this slice holds at least `wanted` on gfn and it is mapped. The fault path. `touch`
  // says whose fault it is, for statistics and for guesses about what comes next.
  virtual Outcome acquire(Gfn gfn, Right wanted, Touch touch) noexcept = 0;
  Outcome acquire(Gfn gfn, Right wanted) noexcept { return acquire(gfn, wanted, {}); }
  // Exclusive right to every page of the range with contents thrown away: they read as zero
  // afterwards, here and everywhere, frames given back on all hosts. Requests overlap. For munmap
  // and MADV_DONTNEED; the caller has made sure the guest's layout forbids access or the guest does
  // not care.
  virtual Outcome discard(Gfn first, std::uint64_t count) noexcept = 0;
  // Acquires every page of the range; requests overlap (several in flight).
  virtual Outcome acquire_range(Gfn first, std::uint64_t count, Right wanted) noexcept = 0;
  // Takes the pages of a range out of this slice's guest mapping without changing any right, so
  // that the next touch faults and the layout is looked at again (after mprotect).
  virtual void unmap(Gfn first, std::uint64_t count) noexcept = 0;
  virtual Right right(Gfn gfn) const noexcept = 0;

  // The service thread's body; returns after stop().
  virtual void serve() = 0;
  virtual void stop(const std::string& cause) noexcept = 0;
  virtual std::string stop_cause() const = 0;
  virtual EngineStats stats(std::size_t hottest) const = 0;
  // Who takes pages from whom; of the pages that are fought over, so many.
  virtual Sharing sharing(std::size_t pages) const = 0;
  // What is known here of the pages of hosts that are lost; also after stop().
  virtual Holdings holdings(HostMask lost) const = 0;
};

}  // namespace xenspan::dsm
