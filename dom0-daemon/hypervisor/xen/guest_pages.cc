#include "dom0-daemon/hypervisor/xen/guest_pages.h"

#include <algorithm>

namespace xenspan::hypervisor::xen {

// Between the two steps the gfns are holes, and Xen reports no access to a hole: reads would give
// ones and writes would vanish. So no vCPU may run then.
int XenGuestPages::give_back(const dsm::Gfn* gfns, std::uint32_t count,
                             std::uint64_t ready) noexcept {
  if (Status paused = xen_.pause(domain_); !paused) return paused.error().code;
  int error = xen_.give_back(domain_, gfns, count);
  if (error == 0) error = xen_.mark_on_demand(domain_, gfns, count);
  OnDemandFacts now;
  if (error == 0) error = on_demand(now);
  if (error == 0) error = keep_ready(now, std::min(ready, now.entries));
  Status running = xen_.unpause(domain_);
  return error != 0 ? error : running ? 0 : running.error().code;
}

// Xen's target counts what is populated and what is ready together. It ignores one that is below
// what the domain has.
int XenGuestPages::keep_ready(const OnDemandFacts& now, std::uint64_t ready) noexcept {
  if (ready <= now.ready) return 0;
  return xen_.set_on_demand_target(domain_, now.pages - now.ready + ready);
}

}  // namespace xenspan::hypervisor::xen
