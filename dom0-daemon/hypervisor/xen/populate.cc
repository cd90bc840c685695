#include "dom0-daemon/hypervisor/xen/populate.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <utility>

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

Error refused(DomainId domain, int error, const char* what) {
  return system_error(error, fmt::format("{} of domain {}", what, domain),
                      "see `xl dmesg`; the slice's xl file needs shadow_memory");
}

// All memory at first: while there are entries, Xen keeps what it is given as their stock.
Status make_entries(XenCalls& xen, DomainId domain, const std::vector<GfnRun>& runs) {
  for (const GfnRun& run : runs) {
    in_batches(run.first, run.count, [&](const dsm::Gfn* gfns, std::uint32_t size) {
      if (xen.give_back(domain, gfns, size) == 0) return 0;
      for (std::uint32_t i = 0; i < size; ++i) xen.give_back(domain, gfns + i, 1);  // holes
      return 0;
    });
  }
  // One that could not be given back is found here (EBUSY).
  for (const GfnRun& run : runs) {
    const int error =
        in_batches(run.first, run.count, [&](const dsm::Gfn* gfns, std::uint32_t size) {
          return xen.mark_on_demand(domain, gfns, size);
        });
    if (error != 0) return refused(domain, error, "cannot make on-demand entries of the memory");
  }
  return {};
}

Status take_default_right(XenCalls& xen, DomainId domain) {
  const int error = xen.set_default_access(domain, Access::kNone);
  if (error != 0) return refused(domain, error, "cannot take away rights to the memory");
  return {};
}

bool is_zero(const std::byte* page) {
  const auto* words = reinterpret_cast<const std::uint64_t*>(page);
  return std::all_of(words, words + dsm::kPageSize / sizeof *words,
                     [](std::uint64_t word) { return word == 0; });
}

void add_to(std::vector<GfnRun>& runs, dsm::Gfn gfn) {
  if (!runs.empty() && runs.back().first + runs.back().count == gfn) {
    ++runs.back().count;
  } else {
    runs.push_back({gfn, 1});
  }
}

// A place for as many pages as are looked at at once.
class Lens {
 public:
  Lens() {
    void* got = ::mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got != MAP_FAILED) at_ = static_cast<std::byte*>(got);
  }
  Lens(const Lens&) = delete;
  Lens& operator=(const Lens&) = delete;
  ~Lens() {
    if (at_ != nullptr) ::munmap(at_, kBytes);
  }
  std::byte* at() const { return at_; }

 private:
  static constexpr std::size_t kBytes = XenCalls::kMostAccesses * dsm::kPageSize;
  std::byte* at_ = nullptr;
};

struct Sorted {
  std::vector<GfnRun> with, without;  // contents
};

bool is_in(const std::vector<HomePage>& pages, dsm::Gfn gfn) {
  return std::any_of(pages.begin(), pages.end(),
                     [gfn](const auto& page) { return page.gfn == gfn; });
}

// A hole cannot be mapped, and counts as a page of zeros.
int look_through(XenCalls& xen, DomainId domain, dsm::Gfn count, const std::vector<HomePage>& home,
                 Sorted& out) {
  const Lens lens;
  if (lens.at() == nullptr) return ENOMEM;
  int errors[XenCalls::kMostAccesses];
  for (dsm::Gfn first = 0; first < count; first += XenCalls::kMostAccesses) {
    const auto size =
        static_cast<std::uint32_t>(std::min<dsm::Gfn>(XenCalls::kMostAccesses, count - first));
    if (const int error = xen.map_to_read(domain, first, size, lens.at(), errors); error != 0)
      return error;
    for (std::uint32_t i = 0; i < size; ++i) {
      const dsm::Gfn gfn = first + i;
      if (is_in(home, gfn)) continue;
      const bool empty = errors[i] != 0 || is_zero(lens.at() + i * dsm::kPageSize);
      add_to(empty ? out.without : out.with, gfn);
    }
  }
  return 0;
}

// Those that are known by name, inside the guest's memory or not.
Status add_shared(XenCalls& xen, DomainId domain, std::vector<HomePage>& home) {
  const auto shared = xen.shared_pages(domain);
  if (!shared) return shared.error();
  for (const HomePage& page : *shared) {
    if (!is_in(home, page.gfn)) home.push_back(page);
  }
  return {};
}

}  // namespace

Status prepare_on_demand(XenCalls& xen, DomainId domain, dsm::Gfn first, dsm::Gfn count,
                         bool rights) {
  // A slice that was made with little memory may grow to all of it, and what Xen's tools have
  // added.
  constexpr dsm::Gfn kBeside = 1024;
  const auto facts = xen.domain(domain);
  if (!facts) return facts.error();
  if (facts->max_pages < first + count + kBeside) {
    if (const int error = xen.set_most_pages(domain, first + count + kBeside); error != 0)
      return refused(domain, error, "cannot raise the limit of memory");
  }
  Status taken = rights ? take_default_right(xen, domain) : Status{};
  return taken ? make_entries(xen, domain, {{first, count}}) : taken;
}

// Mapping an entry would populate it, as far as Xen has pages for that.
Result<Contents> keep_contents(XenCalls& xen, DomainId domain, dsm::Gfn count, bool rights,
                               std::vector<HomePage> home) {
  OnDemandFacts facts;
  if (const int error = xen.on_demand(domain, facts); error != 0)
    return refused(domain, error, "cannot ask for the memory");
  if (facts.entries != 0)
    return Error{EBUSY,
                 fmt::format("domain {} was made with less memory than its maxmem: put maxmem = "
                             "memory into its xl file",
                             domain)};
  if (Status named = add_shared(xen, domain, home); !named) return named.error();
  Sorted sorted;
  if (const int error = look_through(xen, domain, count, home, sorted); error != 0)
    return refused(domain, error, "cannot map the memory");
  if (Status taken = rights ? take_default_right(xen, domain) : Status{}; !taken)
    return taken.error();
  if (Status made = make_entries(xen, domain, sorted.without); !made) return made.error();
  std::sort(home.begin(), home.end(), [](const auto& a, const auto& b) { return a.gfn < b.gfn; });
  return Contents{std::move(sorted.with), std::move(home)};
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
