// Pages that a host reads and writes in one go, each time it gets them: counters, barriers, queues,
// the edges of arrays. Their first read brings the exclusive right, which saves the upgrade behind
// it.
//
// (Stenstrom, Brorsson, Sandberg: An Adaptive Cache Coherence Protocol Optimized for Migratory
// Sharing, ISCA 1993. They detect it at the directory; here each host learns about its own
// accesses. It tells them apart by the place in the program that reads (Kaxiras, Goodman: Improving
// CC-NUMA Performance Using Instruction-Based Prediction, HPCA 1999): the same page of a barrier is
// read by a thread that arrives and is about to write, and by one that waits, spinning, and is
// not.) A read is migratory when an upgrade follows at once on two of five, recent ones counting
// most: a wrong guess costs at most what a right one saves, and often nothing, since the next
// host to want the page wants to write it. One such read in seven is an ordinary one, to see
// whether that is still so. Wrong guesses cost time, never
// correctness. Threading: any, calls for one gfn may race: a guess is lost then. No allocation, no
// lock.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "dsm-rdma/types.h"

namespace xenspan::dsm {

class MigratoryPages {
 public:
  // A read fault: whether to ask for the exclusive right instead. `site`: the instruction's
  // address, or 0.
  bool wants_exclusive(Gfn gfn, std::uint64_t site) noexcept {
    const std::uint64_t key = key_of(gfn, site);
    Habit& habit = habit_of(key);
    if (habit.key.load(std::memory_order_relaxed) != key) return false;
    if (habit.share.load(std::memory_order_relaxed) < kSure) return false;
    return habit.reads.fetch_add(1, std::memory_order_relaxed) % kLookAgain != 0;
  }
  // A shared right that a read fault asked for is here.
  void on_read(Gfn gfn, std::uint64_t site, std::uint64_t now_ns) noexcept {
    Read& read = read_of(gfn);
    read.gfn.store(gfn, std::memory_order_relaxed);
    read.key.store(key_of(gfn, site), std::memory_order_relaxed);
    read.ns.store(now_ns, std::memory_order_relaxed);
  }
  // A write fault on a page that is held shared.
  void on_upgrade(Gfn gfn, std::uint64_t now_ns) noexcept {
    if (const std::uint64_t read_ns = take_read(gfn))
      judge(read_of(gfn).key.load(std::memory_order_relaxed), now_ns - read_ns < kAtOnceNs);
  }
  // The page is given up.
  void on_lost(Gfn gfn) noexcept {
    // It was read and not written.
    if (take_read(gfn) != 0) judge(read_of(gfn).key.load(std::memory_order_relaxed), false);
  }

 private:
  static constexpr std::uint64_t kAtOnceNs = 30'000;
  // Shares of 256; each read weighs a quarter of what is known. So two in a row are enough at the
  // start, and every second one keeps it up. Odd, so as not to fall in step with every second one.
  static constexpr unsigned kOne = 256, kSure = 100, kLookAgain = 7;
  // The last read of a page.
  struct Read {
    std::atomic<Gfn> gfn{0};
    std::atomic<std::uint64_t> key{0};
    std::atomic<std::uint64_t> ns{0};  // 0: an upgrade has followed, or it is lost
  };
  // What usually follows when this page is read from this place.
  struct Habit {
    std::atomic<std::uint64_t> key{0};
    std::atomic<unsigned> share{0};  // of reads that an upgrade followed at once, of kOne
    std::atomic<unsigned> reads{0};
  };

  static std::uint64_t mixed(std::uint64_t value) noexcept { return value * 0x9e3779b97f4a7c15; }
  static std::uint64_t key_of(Gfn gfn, std::uint64_t site) noexcept {
    return mixed(gfn) ^ (site + 1);
  }
  Read& read_of(Gfn gfn) noexcept { return reads_[(mixed(gfn) >> 32) % reads_.size()]; }
  Habit& habit_of(std::uint64_t key) noexcept {
    return habits_[(mixed(key) >> 32) % habits_.size()];
  }

  std::uint64_t take_read(Gfn gfn) noexcept {
    Read& read = read_of(gfn);
    if (read.gfn.load(std::memory_order_relaxed) != gfn) return 0;
    return read.ns.exchange(0, std::memory_order_relaxed);
  }
  void judge(std::uint64_t key, bool right) noexcept {
    Habit& habit = habit_of(key);
    if (habit.key.load(std::memory_order_relaxed) != key) {
      if (!right) return;
      habit.key.store(key, std::memory_order_relaxed);
      habit.share.store(0, std::memory_order_relaxed);
    }
    const unsigned share = habit.share.load(std::memory_order_relaxed);
    habit.share.store(share - share / 4 + (right ? kOne / 4 : 0), std::memory_order_relaxed);
  }

  std::array<Read, 1024> reads_;
  std::array<Habit, 1024> habits_;
};

}  // namespace xenspan::dsm
