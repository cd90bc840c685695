// Pages that this host wants again some time after each loss: tables and settings that it reads
// each time another host has written them, the edges of arrays that two hosts read and write in
// turn. Such a page is asked for again by itself, by the service thread, before it is touched.
//
// (Munin recognises read-mostly data by annotation and updates its readers: Carter, Bennett,
// Zwaenepoel, Implementation and Performance of Munin, SOSP 1991. Here the page recognises itself,
// and its users ask: the protocol has no message that nobody asked for.) What counts is the time
// from a loss until the page is wanted again, and with which right. Where it was long each time,
// the page is asked for when half of that time is over: whoever took it has had time to use it.
// The right to write is taken from readers or from another writer, so it needs more signs than a
// read copy does. A loss to a request that nobody waits for does not count: the other host has
// come for the page early itself, and two that do so would only take it from each other.
//
// Some of the pages that have come back are held and not mapped, so that their first touch is seen;
// one that is lost before has to be learned anew. Wrong guesses cost time, never correctness.
// Threading: any, calls for one gfn may race: a guess is lost then. No allocation, no lock, no
// clock.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "dsm-rdma/types.h"

namespace xenspan::dsm {

class ReturningPages {
 public:
  // Whoever wants a page again sooner than this after its loss waits for the other host anyway.
  static constexpr std::uint64_t kLateNs = 800'000;
  // It is asked for no sooner.
  static constexpr std::uint64_t kSoonestNs = 200'000;
  struct Reminder {
    std::uint64_t due_ns = 0;    // 0: none
    std::uint64_t early_ns = 0;  // so much sooner it may be done together with others
    Right right = Right::kInvalid;
  };

  // A right is taken away; `waited`: by a request that a thread waits for. When to ask for the page
  // again.
  Reminder on_lost(Gfn gfn, std::uint64_t now_ns, bool waited) noexcept {
    Entry& entry = place_of(gfn);
    if (entry.gfn.load(std::memory_order_relaxed) != gfn) return {};
    const bool unused = entry.unused.exchange(false, std::memory_order_relaxed);
    const Right used = entry.used.exchange(Right::kInvalid, std::memory_order_relaxed);
    entry.lost_ns.store(waited ? now_ns : 0, std::memory_order_relaxed);
    Right right = entry.right.load(std::memory_order_relaxed);
    if (unused) {
      entry.times.store(0, std::memory_order_relaxed);
    } else if (used == Right::kExclusive) {
      entry.only_read.store(0, std::memory_order_relaxed);
      if (right != used)
        entry.times.store(std::min(entry.times.load(std::memory_order_relaxed), 1u),
                          std::memory_order_relaxed);
      entry.right.store(right = used, std::memory_order_relaxed);
    } else if (used == Right::kShared && right == Right::kExclusive &&
               entry.only_read.fetch_add(1, std::memory_order_relaxed) + 1 >= kOnlyRead) {
      entry.right.store(right = used, std::memory_order_relaxed);
    }
    const unsigned sure = right == Right::kExclusive ? kSureToWrite : kSureToRead;
    if (!waited || entry.times.load(std::memory_order_relaxed) < sure) return {};
    const std::uint64_t half = entry.gap_ns.load(std::memory_order_relaxed) / 2;
    return {now_ns + half, half - kSoonestNs, right};
  }
  // Whether it is to stay unmapped when it comes back.
  bool to_watch(Gfn gfn) noexcept {
    return place_of(gfn).asked.fetch_add(1, std::memory_order_relaxed) % kWatched == gfn % kWatched;
  }
  // It has been asked for again, to be watched.
  void on_watched(Gfn gfn) noexcept {
    Entry& entry = place_of(gfn);
    if (entry.gfn.load(std::memory_order_relaxed) == gfn)
      entry.unused.store(true, std::memory_order_relaxed);
  }
  // A page that was held, and not mapped, is touched.
  void on_touched(Gfn gfn, Right right) noexcept {
    Entry& entry = place_of(gfn);
    if (entry.gfn.load(std::memory_order_relaxed) != gfn) return;
    entry.unused.store(false, std::memory_order_relaxed);
    use(entry, right);
  }
  // It has to be asked for, by a fault or beside one.
  void on_wanted(Gfn gfn, Right right, std::uint64_t now_ns) noexcept {
    Entry& entry = place_of(gfn);
    if (entry.gfn.load(std::memory_order_relaxed) != gfn) {
      entry.gfn.store(gfn, std::memory_order_relaxed);
      entry.times.store(0, std::memory_order_relaxed);
      entry.lost_ns.store(0, std::memory_order_relaxed);
      entry.asked.store(0, std::memory_order_relaxed);
      entry.only_read.store(0, std::memory_order_relaxed);
      entry.right.store(right, std::memory_order_relaxed);
      entry.used.store(right, std::memory_order_relaxed);
      entry.unused.store(false, std::memory_order_relaxed);
      return;
    }
    use(entry, right);
    const std::uint64_t lost = entry.lost_ns.exchange(0, std::memory_order_relaxed);
    if (lost == 0) return;
    const std::uint64_t gap = now_ns - lost;
    const unsigned times = entry.times.load(std::memory_order_relaxed);
    if (gap <= kLateNs) {
      entry.times.store(times / 2, std::memory_order_relaxed);
      return;
    }
    const std::uint64_t before = entry.gap_ns.load(std::memory_order_relaxed);
    entry.gap_ns.store(times == 0 ? gap : std::min(gap, before + before / 8),
                       std::memory_order_relaxed);
    entry.times.store(std::min(times + 1, kSureToWrite), std::memory_order_relaxed);
  }

 private:
  static constexpr unsigned kSureToRead = 2, kSureToWrite = 4;
  static constexpr unsigned kOnlyRead = 4;  // times that show that it is not written any more
  static constexpr unsigned kWatched = 4;   // one in so many
  struct Entry {
    std::atomic<Gfn> gfn{~Gfn{0}};
    std::atomic<std::uint64_t> lost_ns{0};  // not wanted again since, or 0
    std::atomic<std::uint64_t> gap_ns{0};   // from a loss until it is wanted, if not less
    std::atomic<unsigned> times{0};         // that it was wanted again late, one after the other
    std::atomic<unsigned> only_read{0};     // one after the other, since it was written last
    std::atomic<unsigned> asked{0};
    std::atomic<Right> right{Right::kInvalid};  // that it was wanted with
    std::atomic<Right> used{Right::kInvalid};   // the same since the last loss, as far as seen
    std::atomic<bool> unused{false};            // asked for again, watched, not touched since
  };
  static void use(Entry& entry, Right right) noexcept {
    if (entry.used.load(std::memory_order_relaxed) < right)
      entry.used.store(right, std::memory_order_relaxed);
  }
  Entry& place_of(Gfn gfn) noexcept {
    return entries_[(gfn * 0x9e3779b97f4a7c15 >> 32) % entries_.size()];
  }

  std::array<Entry, 512> entries_;
};

}  // namespace xenspan::dsm
