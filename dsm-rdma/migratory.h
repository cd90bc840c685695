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
// whether that is still so.
//
// An upgrade that follows much later counts as well where it had to ask one host alone: the one the
// page came from, which has kept its copy in vain if it did not read it meanwhile. Of two hosts at
// a barrier, whoever has waited need not ask again when it arrives the next time. Whether the other
// host does read it shows when the exclusive right has been taken: then the next host to come wants
// to read, and that is worth half of what was known.
//
// Wrong guesses cost time, never correctness. Threading: any, calls for one gfn may race: a guess
// is lost then. No allocation, no lock.
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
    const bool late = habit.late();
    if (habit.share.load(std::memory_order_relaxed) < (late ? kSureLate : kSure)) return false;
    if ((habit.reads.fetch_add(1, std::memory_order_relaxed) & kCount) % kLookAgain == 0)
      return false;
    if (late) note(gfn, key, kTaken);
    return true;
  }
  // A shared right that a read fault asked for is here.
  void on_read(Gfn gfn, std::uint64_t site, std::uint64_t now_ns) noexcept {
    note(gfn, key_of(gfn, site), now_ns);
  }
  // A write fault on a page that is held shared; `alone`: one other host had it.
  void on_upgrade(Gfn gfn, std::uint64_t now_ns, bool alone) noexcept {
    const std::uint64_t read_ns = take_read(gfn);
    if (read_ns == 0 || read_ns == kTaken) return;
    const bool late = now_ns - read_ns >= kAtOnceNs;
    judge(read_of(gfn).key.load(std::memory_order_relaxed), !late || alone, late && alone);
  }
  // The page is given up.
  void on_lost(Gfn gfn) noexcept {
    const std::uint64_t read_ns = take_read(gfn);
    // It was read and not written. Where it was taken to be written, the next host has come to
    // write it, too.
    if (read_ns != 0)
      judge(read_of(gfn).key.load(std::memory_order_relaxed), read_ns == kTaken, read_ns == kTaken);
  }
  // Another host reads the page, which was exclusive here.
  void on_shared(Gfn gfn) noexcept {
    if (take_read(gfn) != kTaken) return;
    Habit& habit = habit_of(read_of(gfn).key.load(std::memory_order_relaxed));
    habit.share.store(habit.share.load(std::memory_order_relaxed) / 2, std::memory_order_relaxed);
  }

 private:
  static constexpr std::uint64_t kAtOnceNs = 30'000;
  // Shares of 256; each read weighs a quarter of what is known. So two in a row are enough at the
  // start, and every second one keeps it up. Odd, so as not to fall in step with every second one.
  static constexpr unsigned kOne = 256, kSure = 100, kSureLate = 128, kLookAgain = 7;
  static constexpr std::uint64_t kTaken = ~std::uint64_t{0};
  static constexpr unsigned kLate = 1u << 31, kCount = kLate - 1;
  // The last read of a page.
  struct Read {
    std::atomic<Gfn> gfn{0};
    std::atomic<std::uint64_t> key{0};
    // 0: an upgrade has followed, or it is lost. kTaken: it was taken to be written much later.
    std::atomic<std::uint64_t> ns{0};
  };
  // What usually follows when this page is read from this place.
  struct Habit {
    std::atomic<std::uint64_t> key{0};
    std::atomic<unsigned> share{0};  // of reads that such an upgrade followed, of kOne
    std::atomic<unsigned> reads{0};  // and kLate where it follows late
    bool late() const noexcept { return (reads.load(std::memory_order_relaxed) & kLate) != 0; }
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
  void note(Gfn gfn, std::uint64_t key, std::uint64_t ns) noexcept {
    Read& read = read_of(gfn);
    read.gfn.store(gfn, std::memory_order_relaxed);
    read.key.store(key, std::memory_order_relaxed);
    read.ns.store(ns, std::memory_order_relaxed);
  }
  void judge(std::uint64_t key, bool right, bool late) noexcept {
    Habit& habit = habit_of(key);
    if (habit.key.load(std::memory_order_relaxed) != key) {
      if (!right) return;
      habit.key.store(key, std::memory_order_relaxed);
      habit.share.store(0, std::memory_order_relaxed);
    }
    if (right && late != habit.late())
      habit.reads.store(late ? kLate : 0, std::memory_order_relaxed);
    const unsigned share = habit.share.load(std::memory_order_relaxed);
    habit.share.store(share - share / 4 + (right ? kOne / 4 : 0), std::memory_order_relaxed);
  }

  std::array<Read, 1024> reads_;
  std::array<Habit, 1024> habits_;
};

}  // namespace xenspan::dsm
