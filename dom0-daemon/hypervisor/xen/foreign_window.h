// One window of addresses in which every page of a domain has its fixed place, and a bounded number
// of them is mapped: the engine's view of the frames.
//
// A mapping of another domain's page costs the kernel an address range of its own, of which a
// process may have 65530, so the mappings are a cache. A page is mapped when it is asked for and
// stays so while anybody may still use it: until the same thread asks for another page (a page is
// sent at once, PageBackend::frames_keep_still()), and, when it was asked for to be filled, until
// settle(). Threading: any thread; drop() and settle() as PageBackend's calls, one at a time for a
// gfn. Nothing here is shared between gfns but counters and the ring of places. No allocation after
// create(). Ownership: owns the addresses and what is mapped there; `pages` is borrowed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.h"
#include "dom0-daemon/hypervisor/xen/guest_pages.h"

namespace xenspan::hypervisor::xen {

class ForeignWindow {
 public:
  static constexpr std::uint32_t kMostMapped = 16384;

  static Result<std::unique_ptr<ForeignWindow>> create(GuestPages& pages, dsm::Gfn count,
                                                       std::uint32_t most_mapped = kMostMapped);
  ~ForeignWindow();

  // The page's place, whether mapped or not.
  std::byte* place(dsm::Gfn gfn) const noexcept { return base_ + (gfn << dsm::kPageShift); }
  // Mapped and usable as said above; 0 or an errno (ENOBUFS: all places are being filled).
  int use(dsm::Gfn gfn, bool to_fill) noexcept;
  // It has been filled, and may be unmapped from now on.
  void settle(dsm::Gfn gfn) noexcept;
  // Not mapped any more. The caller knows that nobody uses it.
  int drop(dsm::Gfn gfn) noexcept;

  std::uint32_t mapped() const noexcept { return mapped_.load(std::memory_order_relaxed); }

 private:
  // An entry of a gfn: its state in the low bits, and, while it is mapped, its place in the ring.
  using Entry = std::atomic<std::uint32_t>;
  static constexpr std::uint32_t kAbsent = 0, kBusy = 1, kMapped = 2, kState = 3;
  static constexpr std::uint32_t kFilling = 4, kRecent = 8;
  static constexpr unsigned kRingShift = 4;
  static constexpr dsm::Gfn kFree = ~dsm::Gfn{0}, kTaken = kFree - 1;

  ForeignWindow(GuestPages& pages, dsm::Gfn count, std::uint32_t most_mapped);
  Status reserve();
  int map(dsm::Gfn gfn, bool to_fill) noexcept;
  int take_place(std::uint32_t& place) noexcept;
  bool evict(dsm::Gfn gfn) noexcept;
  int unmap(dsm::Gfn gfn) noexcept;

  GuestPages& pages_;
  const dsm::Gfn count_;
  const std::uint32_t most_;
  std::byte* base_ = nullptr;
  Entry* entries_ = nullptr;                       // one a gfn; memory follows use
  std::unique_ptr<std::atomic<dsm::Gfn>[]> ring_;  // what is mapped, in any order
  std::atomic<std::uint32_t> hand_{0}, mapped_{0};
};

}  // namespace xenspan::hypervisor::xen
