// Pages that a host reads and writes in one go, each time it gets them: counters, barriers, queues,
// the edges of arrays. Their first read brings the exclusive right, which saves the upgrade behind
// it.
//
// (Stenstrom, Brorsson, Sandberg: An Adaptive Cache Coherence Protocol Optimized for Migratory
// Sharing, ISCA 1993. They detect it at the directory; here each host learns about its own
// accesses, so that one that only waits for a value, spinning, goes on reading.) A page is
// migratory once an upgrade has followed at once on a read twice; one such read in eight is an
// ordinary one, to see whether that is still so. Wrong guesses cost time, never correctness.
// Threading: any, calls for one gfn may race: a guess is lost then. No allocation, no lock.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "dsm-rdma/types.h"

namespace xenspan::dsm {

class MigratoryPages {
 public:
  // A read fault: whether to ask for the exclusive right instead.
  bool wants_exclusive(Gfn gfn) noexcept {
    Entry& entry = place_of(gfn);
    if (entry.gfn.load(std::memory_order_relaxed) != gfn) return false;
    if (entry.score.load(std::memory_order_relaxed) < kSure) return false;
    return entry.reads.fetch_add(1, std::memory_order_relaxed) % kLookAgain != 0;
  }
  // A shared right that a read fault asked for is here.
  void on_read(Gfn gfn, std::uint64_t now_ns) noexcept {
    Entry& entry = place_of(gfn);
    if (entry.gfn.load(std::memory_order_relaxed) != gfn) {
      entry.gfn.store(gfn, std::memory_order_relaxed);
      entry.score.store(0, std::memory_order_relaxed);
    }
    entry.read_ns.store(now_ns, std::memory_order_relaxed);
  }
  // A write fault on a page that is held shared.
  void on_upgrade(Gfn gfn, std::uint64_t now_ns) noexcept {
    Entry& entry = place_of(gfn);
    if (entry.gfn.load(std::memory_order_relaxed) != gfn) return;
    const std::uint64_t read_ns = entry.read_ns.exchange(0, std::memory_order_relaxed);
    if (read_ns == 0) return;
    const unsigned score = entry.score.load(std::memory_order_relaxed);
    entry.score.store(now_ns - read_ns < kAtOnceNs ? std::min(score + 1, kSure) : 0,
                      std::memory_order_relaxed);
  }
  // The page is given up.
  void on_lost(Gfn gfn) noexcept {
    Entry& entry = place_of(gfn);
    if (entry.gfn.load(std::memory_order_relaxed) != gfn) return;
    // It was read and not written.
    if (entry.read_ns.exchange(0, std::memory_order_relaxed) != 0)
      entry.score.store(0, std::memory_order_relaxed);
  }

 private:
  static constexpr std::uint64_t kAtOnceNs = 30'000;
  static constexpr unsigned kSure = 2, kLookAgain = 8;
  struct Entry {
    std::atomic<Gfn> gfn{0};
    std::atomic<std::uint64_t> read_ns{0};  // of a read that no upgrade has followed yet, or 0
    std::atomic<unsigned> score{0}, reads{0};
  };
  Entry& place_of(Gfn gfn) noexcept {
    return entries_[(gfn * 0x9e3779b97f4a7c15 >> 32) % entries_.size()];
  }

  std::array<Entry, 1024> entries_;
};

}  // namespace xenspan::dsm
