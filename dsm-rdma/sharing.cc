#include "dsm-rdma/sharing.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <tuple>

#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/zero_page.h"

namespace xenspan::dsm {
namespace {

constexpr std::uint64_t mask(unsigned bits) { return (std::uint64_t{1} << bits) - 1; }

}  // namespace

// One range of one vCPU, in a word: empty when its count is 0.
struct SharingTable::Slot {
  static constexpr unsigned kVcpuBits = 10, kByteBits = 12, kCountBits = 29;
  static_assert(kMostVcpus == 1u << kVcpuBits && kPageSize == 1u << kByteBits);
  static_assert(kVcpuBits + 2 * kByteBits + 1 + kCountBits == 64);

  std::uint64_t word;

  static Slot of(Touch touch, bool writes) {
    return {std::uint64_t{touch.vcpu} << 54 | std::uint64_t{touch.offset} << 42 |
            std::uint64_t{touch.offset} << 30 | std::uint64_t{writes} << 29 | 1};
  }
  unsigned vcpu() const { return static_cast<unsigned>(word >> 54); }
  unsigned low() const { return static_cast<unsigned>(word >> 42 & mask(kByteBits)); }
  unsigned high() const { return static_cast<unsigned>(word >> 30 & mask(kByteBits)); }
  bool writes() const { return (word >> 29 & 1) != 0; }
  std::uint32_t count() const { return static_cast<std::uint32_t>(word & mask(kCountBits)); }
  bool holds(unsigned offset) const { return low() <= offset && offset <= high(); }
  // Once more, at this byte.
  Slot more(Touch touch, bool write) const {
    const std::uint64_t from = std::min<std::uint64_t>(low(), touch.offset);
    const std::uint64_t to = std::max<std::uint64_t>(high(), touch.offset);
    const std::uint64_t counted = std::min<std::uint64_t>(count() + 1, mask(kCountBits));
    return {std::uint64_t{vcpu()} << 54 | from << 42 | to << 30 |
            std::uint64_t{writes() || write} << 29 | counted};
  }
};

// `header`: gfn + 1 (0: empty) and the weight that newcomers wear down.
struct SharingTable::Page {
  static constexpr unsigned kWeightBits = 31;  // leaves 33 for gfn + 1
  std::atomic<std::uint64_t> header;
  std::array<std::atomic<std::uint64_t>, kSlots> slots;

  void note(Touch touch, bool writes) noexcept {
    std::atomic<std::uint64_t>*match = nullptr, *empty = nullptr, *own = nullptr,
    *weakest = nullptr;
    Slot matched{}, own_least{}, least{};
    unsigned ranges = 0;
    for (std::atomic<std::uint64_t>& place : slots) {
      const Slot slot{place.load(std::memory_order_relaxed)};
      if (slot.count() == 0) {
        if (empty == nullptr) empty = &place;
        continue;
      }
      if (weakest == nullptr || slot.count() < least.count()) weakest = &place, least = slot;
      if (slot.vcpu() != touch.vcpu) continue;
      ++ranges;
      if (own == nullptr || slot.count() < own_least.count()) own = &place, own_least = slot;
      // The narrowest range: a wide one is a sum of rare touches.
      if (slot.holds(touch.offset) &&
          (match == nullptr || slot.high() - slot.low() < matched.high() - matched.low())) {
        match = &place;
        matched = slot;
      }
    }
    if (match != nullptr) {
      replace(*match, matched, matched.more(touch, writes));
    } else if (empty != nullptr && ranges < kRangesOfVcpu) {
      replace(*empty, {0}, Slot::of(touch, writes));
    } else if (own != nullptr) {
      replace(*own, own_least, own_least.more(touch, writes));
    } else if (least.count() == 1) {
      replace(*weakest, least, Slot::of(touch, writes));
    } else {
      replace(*weakest, least, {least.word - 1});
    }
  }

 private:
  static void replace(std::atomic<std::uint64_t>& place, Slot expected, Slot by) noexcept {
    place.compare_exchange_strong(expected.word, by.word, std::memory_order_relaxed);
  }
};

struct SharingTable::Tables {
  std::array<std::array<Page, kWays>, kSets> pages;
  std::array<std::array<std::atomic<std::uint64_t>, kMaxHosts>, kMostVcpus> taken;
};

Status SharingTable::create() {
  static_assert(sizeof(Page) == 128);
  void* memory = ::mmap(nullptr, sizeof(Tables), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return system_error(errno, "cannot reserve addresses for the table of shared pages",
                        "raise the limit RLIMIT_AS");
  }
  tables_ = static_cast<Tables*>(memory);
  start_ns_ = now_ns();
  return {};
}

SharingTable::~SharingTable() {
  if (tables_ != nullptr) ::munmap(tables_, sizeof(Tables));
}

SharingTable::Page* SharingTable::find(Gfn gfn) noexcept {
  std::array<Page, kWays>& set = tables_->pages[(gfn * 0x9e3779b97f4a7c15 >> 32) % kSets];
  const std::uint64_t tag = gfn + 1;
  Page* weakest = nullptr;
  std::uint64_t least = 0;
  for (Page& page : set) {
    std::uint64_t header = page.header.load(std::memory_order_relaxed);
    if (header >> Page::kWeightBits == tag) {
      if ((header & mask(Page::kWeightBits)) != mask(Page::kWeightBits))
        page.header.compare_exchange_strong(header, header + 1, std::memory_order_relaxed);
      return &page;
    }
    const std::uint64_t weight = header & mask(Page::kWeightBits);
    if (weakest == nullptr || weight < (least & mask(Page::kWeightBits)))
      weakest = &page, least = header;
  }
  if ((least & mask(Page::kWeightBits)) != 0) {
    weakest->header.compare_exchange_strong(least, least - 1, std::memory_order_relaxed);
    return nullptr;
  }
  if (!weakest->header.compare_exchange_strong(least, tag << Page::kWeightBits | 1,
                                               std::memory_order_relaxed)) {
    return nullptr;
  }
  for (auto& slot : weakest->slots) slot.store(0, std::memory_order_relaxed);
  return weakest;
}

void SharingTable::note(Touch touch, Gfn gfn, bool writes, HostId giver) noexcept {
  if (touch.vcpu >= kMostVcpus || touch.offset >= kPageSize || giver >= kMaxHosts) return;
  tables_->taken[touch.vcpu][giver].fetch_add(1, std::memory_order_relaxed);
  if (Page* page = find(gfn)) page->note(touch, writes);
}

Sharing SharingTable::report(std::size_t pages) const {
  Sharing out;
  out.seconds = static_cast<double>(now_ns() - start_ns_) / 1e9;
  for (unsigned vcpu = 0; vcpu < kMostVcpus; ++vcpu) {
    for (unsigned host = 0; host < kMaxHosts; ++host) {
      const std::uint64_t faults = tables_->taken[vcpu][host].load(std::memory_order_relaxed);
      if (faults == 0) continue;
      out.taken.push_back({static_cast<std::uint16_t>(vcpu), static_cast<HostId>(host), faults});
    }
  }
  for (const auto& set : tables_->pages) {
    for (const Page& page : set) {
      const std::uint64_t tag = page.header.load(std::memory_order_relaxed) >> Page::kWeightBits;
      Sharing::Page found{tag - 1, 0, {}};
      for (const auto& place : page.slots) {
        const Slot slot{place.load(std::memory_order_relaxed)};
        if (slot.count() == 0) continue;
        found.faults += slot.count();
        found.users.push_back(
            {static_cast<std::uint16_t>(slot.vcpu()), static_cast<std::uint16_t>(slot.low()),
             static_cast<std::uint16_t>(slot.high()), slot.writes(), slot.count()});
      }
      if (tag == 0 || found.users.empty()) continue;
      std::sort(found.users.begin(), found.users.end(), [](const auto& a, const auto& b) {
        return std::tie(a.vcpu, a.low, a.high) < std::tie(b.vcpu, b.low, b.high);
      });
      out.pages.push_back(std::move(found));
    }
  }
  std::sort(out.pages.begin(), out.pages.end(), [](const auto& a, const auto& b) {
    return a.faults != b.faults ? a.faults > b.faults : a.gfn < b.gfn;
  });
  if (out.pages.size() > pages) out.pages.resize(pages);
  return out;
}

// A page of the kernel is in use once anything but zero has been written there.
std::size_t SharingTable::bytes() const {
  static_assert(sizeof(Tables) % kPageSize == 0);
  const auto* const start = reinterpret_cast<const std::byte*>(tables_);
  std::size_t used = 0;
  for (std::size_t at = 0; at < sizeof(Tables); at += kPageSize) {
    if (!is_zero_page(start + at)) used += kPageSize;
  }
  return used;
}

}  // namespace xenspan::dsm
