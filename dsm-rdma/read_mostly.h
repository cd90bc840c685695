// Pages that this host only reads, and reads again each time another host has written them: tables,
// settings, a code page that is patched. A while after such a page was taken away it is fetched
// again, by the service thread and before it is touched.
//
// (Munin recognises read-mostly data by annotation and updates its readers: Carter, Bennett,
// Zwaenepoel, Implementation and Performance of Munin, SOSP 1991. Here the page recognises itself,
// and the readers ask: the protocol has no message that nobody asked for.) A page is read-mostly
// once it was lost and read again twice, each time later than kWaitNs after the loss: whoever reads
// it sooner waits for the writer anyway, and the writer is given that time to finish. A page that
// is asked for beside a fault on another one (prefetch.h) costs no wait of its own and is left
// alone: to fetch it again apart from the others is one message more, at a time when nobody wants
// it. What was fetched again is held and not mapped, so that its first touch is seen; what is lost
// untouched, or written here, has to be learned anew. Wrong guesses cost time, never correctness.
// Threading: any, calls for one gfn may race: a guess is lost then. No allocation, no lock.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "dsm-rdma/types.h"

namespace xenspan::dsm {

class ReadMostlyPages {
 public:
  static constexpr std::uint64_t kWaitNs = 200'000;

  // A read copy is taken away. Whether to fetch it again kWaitNs later.
  bool on_lost(Gfn gfn, std::uint64_t now_ns) noexcept {
    Entry& entry = place_of(gfn);
    if (entry.gfn.load(std::memory_order_relaxed) != gfn) return false;
    entry.lost_ns.store(now_ns, std::memory_order_relaxed);
    if (entry.unused.exchange(false, std::memory_order_relaxed))
      entry.reads.store(0, std::memory_order_relaxed);
    return entry.reads.load(std::memory_order_relaxed) >= kSure;
  }
  // It has been asked for again.
  void on_fetched(Gfn gfn) noexcept {
    Entry& entry = place_of(gfn);
    if (entry.gfn.load(std::memory_order_relaxed) == gfn)
      entry.unused.store(true, std::memory_order_relaxed);
  }
  // A page that was held, and not mapped, is touched.
  void on_touched(Gfn gfn) noexcept {
    Entry& entry = place_of(gfn);
    if (entry.gfn.load(std::memory_order_relaxed) == gfn)
      entry.unused.store(false, std::memory_order_relaxed);
  }
  // A read fault.
  void on_read(Gfn gfn, std::uint64_t now_ns) noexcept {
    Entry& entry = place_of(gfn);
    if (entry.gfn.load(std::memory_order_relaxed) != gfn) {
      entry.gfn.store(gfn, std::memory_order_relaxed);
      entry.reads.store(0, std::memory_order_relaxed);
      entry.lost_ns.store(0, std::memory_order_relaxed);
      entry.unused.store(false, std::memory_order_relaxed);
      return;
    }
    const std::uint64_t lost = entry.lost_ns.exchange(0, std::memory_order_relaxed);
    if (lost != 0 && now_ns > lost + kWaitNs) {
      if (entry.reads.load(std::memory_order_relaxed) < kSure)
        entry.reads.fetch_add(1, std::memory_order_relaxed);
    } else {
      entry.reads.store(0, std::memory_order_relaxed);
    }
  }
  // It comes with a fault on another page.
  void on_early(Gfn gfn) noexcept { on_write(gfn); }
  // A write fault.
  void on_write(Gfn gfn) noexcept {
    Entry& entry = place_of(gfn);
    if (entry.gfn.load(std::memory_order_relaxed) == gfn)
      entry.reads.store(0, std::memory_order_relaxed);
  }

 private:
  static constexpr unsigned kSure = 2;
  struct Entry {
    std::atomic<Gfn> gfn{~Gfn{0}};
    std::atomic<std::uint64_t> lost_ns{0};  // not read again since, or 0
    std::atomic<unsigned> reads{0};         // again, one after the other
    std::atomic<bool> unused{false};        // fetched again, not touched since
  };
  Entry& place_of(Gfn gfn) noexcept {
    return entries_[(gfn * 0x9e3779b97f4a7c15 >> 32) % entries_.size()];
  }

  std::array<Entry, 1024> entries_;
};

}  // namespace xenspan::dsm
