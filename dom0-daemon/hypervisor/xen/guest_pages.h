// What the page backend asks of Xen about one domain's memory, and the real thing.
//
// An interface so that tests can stand in for Xen. Threading: any thread; calls for one gfn never
// overlap. All return 0 or an errno. Ownership: XenGuestPages borrows `xen`.
#pragma once

#include "dom0-daemon/hypervisor/xen/types.h"
#include "dom0-daemon/hypervisor/xen/xen_calls.h"

namespace xenspan::hypervisor::xen {

class GuestPages {
 public:
  virtual ~GuestPages() = default;
  // Populates what is marked on demand. Returns when no vCPU can do more than that any longer.
  virtual int set_access(dsm::Gfn first, std::uint32_t count, Access access) noexcept = 0;
  // Maps the page here, in place of what is mapped there; populates it, too.
  virtual int map(dsm::Gfn gfn, std::byte* at) noexcept = 0;
  // Pages without rights become on-demand entries again, and Xen keeps at least `ready` pages for
  // entries (or as many as there are); no vCPU sees anything else meanwhile. count <= kMostAtOnce.
  static constexpr std::uint32_t kMostAtOnce = XenCalls::kMostAccesses;
  virtual int give_back(const dsm::Gfn* gfns, std::uint32_t count,
                        std::uint64_t ready) noexcept = 0;
  virtual int on_demand(OnDemandFacts& facts) noexcept = 0;
  // Has Xen keep so many pages ready for on-demand entries; it never takes any away.
  virtual int keep_ready(const OnDemandFacts& now, std::uint64_t ready) noexcept = 0;
};

class XenGuestPages final : public GuestPages {
 public:
  XenGuestPages(XenCalls& xen, DomainId domain) : xen_(xen), domain_(domain) {}

  int set_access(dsm::Gfn first, std::uint32_t count, Access access) noexcept override {
    return xen_.set_access(domain_, first, count, access);
  }
  int map(dsm::Gfn gfn, std::byte* at) noexcept override { return xen_.map(domain_, gfn, at); }
  int give_back(const dsm::Gfn* gfns, std::uint32_t count, std::uint64_t ready) noexcept override;
  int on_demand(OnDemandFacts& facts) noexcept override { return xen_.on_demand(domain_, facts); }
  int keep_ready(const OnDemandFacts& now, std::uint64_t ready) noexcept override;

 private:
  XenCalls& xen_;
  const DomainId domain_;
};

}  // namespace xenspan::hypervisor::xen
