#include "dom0-daemon/hypervisor/xen/populate.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>

namespace xenspan::hypervisor::xen {
namespace {

// `order(gfns, count)` for the whole range, in batches.
template <typename Order>
int in_batches(dsm::Gfn first, dsm::Gfn count, Order&& order) {
  dsm::Gfn batch[XenCalls::kMostAccesses];
  for (dsm::Gfn gfn = first; gfn < first + count;) {
    std::uint32_t size = 0;
    for (; size < XenCalls::kMostAccesses && gfn < first + count; ++size) batch[size] = gfn++;
    if (const int error = order(batch, size); error != 0) return error;
  }
  return 0;
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
  // All at first: while there are entries, Xen keeps what it is given as their stock.
  in_batches(first, count, [&](const dsm::Gfn* gfns, std::uint32_t size) {
    if (xen.give_back(domain, gfns, size) == 0) return 0;
    for (std::uint32_t i = 0; i < size; ++i) xen.give_back(domain, gfns + i, 1);  // some are holes
    return 0;
  });
  // One that could not be given back is found here (EBUSY).
  const int error = in_batches(first, count, [&](const dsm::Gfn* gfns, std::uint32_t size) {
    return xen.mark_on_demand(domain, gfns, size);
  });
  return error == 0 ? Status{} : failed(error, "cannot make on-demand entries of the memory");
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
  return pages_.give_back(gfns, count, static_cast<std::uint64_t>(least_));
}

}  // namespace xenspan::hypervisor::xen
