// The engine's page table: 24 bytes a gfn, in memory that comes into being with its first use.
//
// An entry holds the machine's state and one word: lock, "touched", "parked", and a count of
// faults. Touched means that the page may be mapped into the guest or that its frame may hold
// something; an untouched page is unmapped and its frame is zero. A chunk of entries is active once
// any entry in it has been changed; scans skip the others. Threading: entries are guarded by their
// own lock bit; the rest is atomic. Ownership: the table owns its memory.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/result.h"
#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/ivy/page_state.h"
#include "dsm-rdma/types.h"

namespace xenspan::dsm {

class PageEntry {
 public:
  ivy::PageState state;  // GUARDED_BY(lock())

  void lock() noexcept { WordLock::lock(word_); }
  bool try_lock() noexcept { return WordLock::try_lock(word_); }
  void unlock() noexcept { WordLock::unlock(word_); }

  // With the lock held, except where a rough answer does.
  bool touched() const noexcept { return (word_.load(std::memory_order_relaxed) & kTouched) != 0; }
  void set_touched() noexcept { word_.fetch_or(kTouched, std::memory_order_relaxed); }
  void clear_touched() noexcept { word_.fetch_and(~kTouched, std::memory_order_relaxed); }
  std::uint32_t faults() const noexcept {
    return word_.load(std::memory_order_relaxed) / kOneFault;
  }
  // Messages for the page are parked (parked.h). With the lock held.
  bool parked() const noexcept { return (word_.load(std::memory_order_relaxed) & kParked) != 0; }
  void set_parked(bool on) noexcept {
    if (on) {
      word_.fetch_or(kParked, std::memory_order_relaxed);
    } else {
      word_.fetch_and(~kParked, std::memory_order_relaxed);
    }
  }
  void count_fault() noexcept {
    if (faults() < kMaxFaults) word_.fetch_add(kOneFault, std::memory_order_relaxed);
  }

 private:
  static constexpr std::uint32_t kTouched = 1u << WordLock::kFirstFreeBit;
  static constexpr std::uint32_t kParked = kTouched << 1;
  static constexpr std::uint32_t kOneFault = kParked << 1;
  static constexpr std::uint32_t kMaxFaults = ~std::uint32_t{0} / kOneFault;
  std::atomic<std::uint32_t> word_;
};
static_assert(sizeof(PageEntry) == 24);

class PageTable {
 public:
  static constexpr Gfn kChunkPages = 512;  // 2 MiB of guest memory, 12 KiB of table
  static constexpr Gfn kMaxPages = Gfn{1} << 32;
  static constexpr std::uint64_t kChunkBytes = kChunkPages * sizeof(PageEntry);

  PageTable() = default;
  ~PageTable();
  PageTable(const PageTable&) = delete;
  PageTable& operator=(const PageTable&) = delete;
  Status create(Gfn pages);

  Gfn pages() const noexcept { return pages_; }
  PageEntry& operator[](Gfn gfn) const noexcept { return entries_[gfn]; }

  bool active(Gfn gfn) const noexcept {
    const Gfn chunk = gfn / kChunkPages;
    return (active_[chunk / 64].load(std::memory_order_acquire) >> chunk % 64 & 1) != 0;
  }
  void activate(Gfn gfn) noexcept {
    const Gfn chunk = gfn / kChunkPages;
    const std::uint64_t bit = std::uint64_t{1} << chunk % 64;
    std::atomic<std::uint64_t>& word = active_[chunk / 64];
    if ((word.load(std::memory_order_relaxed) & bit) != 0) return;
    if ((word.fetch_or(bit, std::memory_order_release) & bit) != 0) return;
    active_chunks_.fetch_add(1, std::memory_order_relaxed);
  }
  // The first gfn at or after `gfn` in an active chunk, at most `end`.
  Gfn next_active(Gfn gfn, Gfn end) const noexcept;
  // Of the entries of all active chunks.
  std::uint64_t active_bytes() const noexcept {
    return active_chunks_.load(std::memory_order_relaxed) * kChunkBytes;
  }

 private:
  Gfn pages_ = 0;
  PageEntry* entries_ = nullptr;
  // A bit a chunk, behind the entries in the same mapping.
  std::atomic<std::uint64_t>* active_ = nullptr;
  std::atomic<std::uint64_t> active_chunks_{0};
  std::size_t bytes_ = 0;
};

}  // namespace xenspan::dsm
