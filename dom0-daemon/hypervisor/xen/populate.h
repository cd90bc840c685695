// Memory of a slice follows use: its pages are on-demand entries of Xen until they are touched or
// filled, and become such entries again when the slice no longer holds them.
//
// Only entries of one page: see README.md for what larger ones lose. Xen takes the page for an
// entry from a small stock of the domain and crashes the domain when that is empty, so the stock is
// filled up before it is used. Threading: expect() and give_back() from any thread; prepare()
// before any vCPU runs. Ownership: `pages` is borrowed.
#pragma once

#include <atomic>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/hypervisor/xen/guest_pages.h"

namespace xenspan::hypervisor::xen {

// Makes [first, first + count) of a paused domain without contents on-demand entries, each of one
// page, and gives their memory back to Xen, without rights for the guest when they are touched.
// `rights`: false leaves the default right alone, for a machine without mem_access.
Status prepare_on_demand(XenCalls& xen, DomainId domain, dsm::Gfn first, dsm::Gfn count,
                         bool rights);

struct GfnRun {
  dsm::Gfn first = 0, count = 0;
};

// The same for a domain that has run: pages that hold anything but zeros stay as they are, and all
// others become on-demand entries. `home` is left alone, and what is found to be Xen's or shared
// with Dom0 is added to it. EBUSY: the domain has on-demand entries already.
struct Contents {
  std::vector<GfnRun> runs;    // in order
  std::vector<HomePage> home;  // in order of gfns
};
Result<Contents> keep_contents(XenCalls& xen, DomainId domain, dsm::Gfn count, bool rights,
                               std::vector<HomePage> home = {});

class Populate {
 public:
  // Beside what the engine fills, each vCPU can touch one page before it is answered.
  Populate(GuestPages& pages, unsigned vcpus)
      : pages_(pages), least_(vcpus + kMargin), most_(least_ + kStep) {}

  // Before up to `count` entries are populated. 0 or an errno (ENOMEM: this host has none left, or
  // the domain may not have more). count <= GuestPages::kMostAtOnce.
  int expect(std::uint32_t count) noexcept;
  // Before any vCPU runs: one may touch an entry before the engine has filled any.
  int prime() noexcept { return refill(); }
  int give_back(const dsm::Gfn* gfns, std::uint32_t count) noexcept;

 private:
  static constexpr std::int64_t kMargin = 128;  // pages that may be under way to this slice
  static constexpr std::int64_t kStep = 512;    // pages taken from Xen at once

  int refill() noexcept;

  GuestPages& pages_;
  const std::int64_t least_, most_;
  std::atomic<std::int64_t> ready_{0};  // never more than Xen has
  std::atomic<bool> filling_{false};
};

}  // namespace xenspan::hypervisor::xen
