#include "dom0-daemon/hypervisor/xen/populate.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>

namespace xenspan::hypervisor::xen {
namespace {

int mark_one(XenCalls& xen, DomainId domain, dsm::Gfn gfn) {
  if (xen.mark_on_demand(domain, &gfn, 1) == 0) return 0;
  if (const int error = xen.give_back(domain, &gfn, 1); error != 0) return error;
  return xen.mark_on_demand(domain, &gfn, 1);
}

}  // namespace

Status prepare_on_demand(XenCalls& xen, DomainId domain, dsm::Gfn first, dsm::Gfn count,
                         bool rights) {
  const auto failed = [&](int error, const char* what) -> Status {
    return system_error(error, fmt::format("{} of domain {}", what, domain),
                        "see `xl dmesg`; the slice's xl file needs shadow_memory");
  };
  if (rights) {
    if (const int error = xen.set_default_access(domain, Access::kNone); error != 0)
      return failed(error, "cannot take away rights to the memory");
  }
  dsm::Gfn batch[XenCalls::kMostAccesses];
  for (dsm::Gfn gfn = first; gfn < first + count;) {
    std::uint32_t size = 0;
    for (; size < XenCalls::kMostAccesses && gfn < first + count; ++size) batch[size] = gfn++;
    if (xen.mark_on_demand(domain, batch, size) == 0) continue;
    for (std::uint32_t i = 0; i < size; ++i) {  // some are populated: one by one
      if (const int error = mark_one(xen, domain, batch[i]); error != 0)
        return failed(error, "cannot make entries on demand of the memory");
    }
  }
  return {};
}

int Populate::expect(std::uint32_t count) noexcept {
  const std::int64_t wanted = count;
  for (;;) {
    std::int64_t left = ready_.load();
    while (left >= wanted + least_) {
      if (ready_.compare_exchange_weak(left, left - wanted)) return 0;
    }
    if (filling_.exchange(true)) {  // another thread is at it
      ::sched_yield();
      continue;
    }
    const int error = refill();
    // No entries are left beyond these: they are all there can be.
    if (error == 0 && ready_.load() < wanted + least_) {
      ready_.fetch_sub(std::min(wanted, ready_.load()));
      filling_.store(false);
      return 0;
    }
    filling_.store(false);
    if (error != 0) return error;
  }
}

int Populate::refill() noexcept {
  OnDemandFacts now;
  if (const int error = pages_.on_demand(now); error != 0) return error;
  const std::uint64_t goal =
      std::min<std::uint64_t>(static_cast<std::uint64_t>(most_), now.entries);
  if (const int error = pages_.keep_ready(now, goal); error != 0) return error;
  ready_.store(static_cast<std::int64_t>(std::max(goal, now.ready)));
  return 0;
}

// What is given back fills the stock first, as Xen does it.
int Populate::give_back(const dsm::Gfn* gfns, std::uint32_t count) noexcept {
  return pages_.give_back(gfns, count);
}

}  // namespace xenspan::hypervisor::xen
