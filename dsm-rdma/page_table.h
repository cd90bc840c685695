// The engine's page table: 20 bytes a gfn, in memory that comes into being with its first use.
//
// An entry holds the machine's state and one word: lock, "touched", "parked", and a count of
// faults. Touched means that the page may be mapped into the guest or that its frame may hold
// something; an untouched page is unmapped and its frame is zero. Entries stand in chunks of one
// page of the kernel, so that what is counted is what the kernel gives; a chunk is active once any
// entry in it has been changed, and scans skip the others. Threading: entries are guarded by their
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
static_assert(sizeof(PageEntry) == 20);

class PageTable {
 public:
  static constexpr std::uint64_t kChunkBytes = kPageSize;
  static constexpr Gfn kChunkPages = kChunkBytes / sizeof(PageEntry);  // 16 bytes are left over
  static constexpr Gfn kMaxPages = Gfn{1} << 32;

  PageTable() = default;
  ~PageTable();
  PageTable(const PageTable&) = delete;
  PageTable& operator=(const PageTable&) = delete;
  Status create(Gfn pages);

  Gfn pages() const noexcept { return pages_; }
  PageEntry& operator[](Gfn gfn) const noexcept {
    return chunks_[gfn / kChunkPages].entries[gfn % kChunkPages];
  }

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
  struct alignas(kChunkBytes) Chunk {
    PageEntry entries[kChunkPages];
  };
  static_assert(sizeof(Chunk) == kChunkBytes);

  Gfn pages_ = 0;
  Chunk* chunks_ = nullptr;
  // A bit a chunk, behind the chunks in the same mapping.
  std::atomic<std::uint64_t>* active_ = nullptr;
  std::atomic<std::uint64_t> active_chunks_{0};
  std::size_t bytes_ = 0;
};

}  // namespace xenspan::dsm
