#include "dom0-daemon/hypervisor/xen/foreign_window.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace xenspan::hypervisor::xen {
namespace {

// Which page each thread of this process uses right now: whoever unmaps a page looks here first
// ("hazard pointers", M. Michael 2004).
constexpr std::size_t kThreads = 256;
std::array<std::atomic<const std::byte*>, kThreads> in_use{};
std::array<std::atomic<bool>, kThreads> lent{};

class OwnPlace {
 public:
  OwnPlace() {
    for (std::size_t i = 0; i < kThreads; ++i) {
      if (lent[i].exchange(true)) continue;
      place_ = &in_use[i];
      flag_ = &lent[i];
      return;
    }
  }
  ~OwnPlace() {
    if (place_ == nullptr) return;
    place_->store(nullptr);
    flag_->store(false);
  }
  std::atomic<const std::byte*>* get() const { return place_; }

 private:
  std::atomic<const std::byte*>* place_ = nullptr;
  std::atomic<bool>* flag_ = nullptr;
};
thread_local OwnPlace own_place;

bool is_in_use(const std::byte* page) {
  return std::any_of(in_use.begin(), in_use.end(),
                     [page](const auto& each) { return each.load() == page; });
}

void* reserve_addresses(std::size_t bytes, int protection) {
  void* got =
      ::mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return got == MAP_FAILED ? nullptr : got;
}

}  // namespace

Result<std::unique_ptr<ForeignWindow>> ForeignWindow::create(GuestPages& pages, dsm::Gfn count,
                                                             std::uint32_t most_mapped) {
  std::unique_ptr<ForeignWindow> window(new ForeignWindow(pages, count, most_mapped));
  if (Status reserved = window->reserve(); !reserved) return reserved.error();
  return window;
}

ForeignWindow::ForeignWindow(GuestPages& pages, dsm::Gfn count, std::uint32_t most_mapped)
    : pages_(pages), count_(count), most_(most_mapped), ring_(new std::atomic<dsm::Gfn>[most_]) {
  for (std::uint32_t i = 0; i < most_; ++i) ring_[i].store(kFree);
}

Status ForeignWindow::reserve() {
  base_ = static_cast<std::byte*>(reserve_addresses(count_ << dsm::kPageShift, PROT_NONE));
  entries_ = static_cast<Entry*>(reserve_addresses(count_ * sizeof(Entry), PROT_READ | PROT_WRITE));
  if (base_ == nullptr || entries_ == nullptr)
    return system_error(errno, fmt::format("no addresses for a domain of {} pages", count_),
                        "raise this process's limit of address space (ulimit -v)");
  ::madvise(base_, count_ << dsm::kPageShift, MADV_DONTDUMP);
  return {};
}

ForeignWindow::~ForeignWindow() {
  if (base_ != nullptr) ::munmap(base_, count_ << dsm::kPageShift);
  if (entries_ != nullptr) ::munmap(static_cast<void*>(entries_), count_ * sizeof(Entry));
}

int ForeignWindow::use(dsm::Gfn gfn, bool to_fill) noexcept {
  Entry& entry = entries_[gfn];
  // First said, then looked at: evict() does it the other way round.
  if (auto* mine = own_place.get(); mine != nullptr) {
    mine->store(place(gfn));
  } else {
    to_fill = true;  // more threads than places: it stays until it is settled or dropped
  }
  const std::uint32_t flags = kRecent | (to_fill ? kFilling : 0);
  for (;;) {
    std::uint32_t seen = entry.load();
    if ((seen & kState) == kMapped) {
      if ((seen & flags) == flags || entry.compare_exchange_weak(seen, seen | flags)) return 0;
    } else if (seen == kAbsent) {
      if (!entry.compare_exchange_weak(seen, kBusy)) continue;
      return map(gfn, to_fill);
    } else {
      ::sched_yield();
    }
  }
}

// The entry is busy, by this thread.
int ForeignWindow::map(dsm::Gfn gfn, bool to_fill) noexcept {
  Entry& entry = entries_[gfn];
  std::uint32_t place_in_ring = 0;
  int error = take_place(place_in_ring);
  if (error == 0) {
    error = pages_.map(gfn, place(gfn));
    if (error != 0) unmap(gfn);
    ring_[place_in_ring].store(error == 0 ? gfn : kFree);
  }
  if (error != 0) {
    entry.store(kAbsent);
    return error;
  }
  mapped_.fetch_add(1, std::memory_order_relaxed);
  entry.store(kMapped | kRecent | (to_fill ? kFilling : 0) | place_in_ring << kRingShift);
  return 0;
}

// A free place, or that of a page which has not been asked for since the hand was here last.
int ForeignWindow::take_place(std::uint32_t& out) noexcept {
  for (std::uint64_t tries = 0; tries < std::uint64_t{3} * most_; ++tries) {
    const std::uint32_t at = hand_.fetch_add(1, std::memory_order_relaxed) % most_;
    dsm::Gfn gfn = ring_[at].load();
    if (gfn == kTaken || !ring_[at].compare_exchange_strong(gfn, kTaken)) continue;
    out = at;
    if (gfn == kFree || evict(gfn)) return 0;
    ring_[at].store(gfn);
  }
  return ENOBUFS;
}

// Its place in the ring is taken by this thread.
bool ForeignWindow::evict(dsm::Gfn gfn) noexcept {
  Entry& entry = entries_[gfn];
  std::uint32_t seen = entry.load();
  if ((seen & kState) != kMapped || (seen & kFilling) != 0) return false;
  if ((seen & kRecent) != 0) {
    entry.compare_exchange_strong(seen, seen & ~kRecent);
    return false;
  }
  if (!entry.compare_exchange_strong(seen, kBusy)) return false;
  if (is_in_use(place(gfn)) || unmap(gfn) != 0) {
    entry.store(seen);
    return false;
  }
  mapped_.fetch_sub(1, std::memory_order_relaxed);
  entry.store(kAbsent);
  return true;
}

void ForeignWindow::settle(dsm::Gfn gfn) noexcept {
  Entry& entry = entries_[gfn];
  std::uint32_t seen = entry.load();
  while ((seen & kState) == kMapped && (seen & kFilling) != 0 &&
         !entry.compare_exchange_weak(seen, seen & ~kFilling)) {
  }
}

int ForeignWindow::drop(dsm::Gfn gfn) noexcept {
  Entry& entry = entries_[gfn];
  for (;;) {
    std::uint32_t seen = entry.load();
    if (seen == kAbsent) return 0;
    if ((seen & kState) != kMapped) {
      ::sched_yield();
      continue;
    }
    // Its place first, so that nobody evicts it meanwhile.
    std::atomic<dsm::Gfn>& ring = ring_[seen >> kRingShift];
    dsm::Gfn there = gfn;
    if (!ring.compare_exchange_strong(there, kTaken)) {
      ::sched_yield();
      continue;
    }
    const int error = unmap(gfn);
    if (error == 0) {
      mapped_.fetch_sub(1, std::memory_order_relaxed);
      entry.store(kAbsent);
    }
    ring.store(error == 0 ? kFree : gfn);
    return error;
  }
}

int ForeignWindow::unmap(dsm::Gfn gfn) noexcept {
  void* got = ::mmap(place(gfn), dsm::kPageSize, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  return got == MAP_FAILED ? errno : 0;
}

}  // namespace xenspan::hypervisor::xen
