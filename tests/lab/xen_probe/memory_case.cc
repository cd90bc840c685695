// What two slices of a large domain use of their hosts' memory: pages of the domain are touched
// from both, through two real engines, in memory of two real domains.
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>

#include "dom0-daemon/hypervisor/xen/page_access.h"
#include "tests/lab/xen_probe/cases.h"
#include "tests/lab/xen_probe/engine_pair.h"

namespace xenspan::lab {

using namespace hypervisor::xen;  // NOLINT: this program is about it

namespace {

constexpr dsm::Gfn kPages = 131072;  // 512 MiB
constexpr dsm::Gfn kFirst = 0x1000;  // beyond what the image has
constexpr dsm::Gfn kOwn = 8192;      // pages written by each: 32 MiB
constexpr dsm::Gfn kRead = 256;      // of the other's
constexpr unsigned kSlices = EnginePair::kEngines;

// On a machine without mem_access: nobody but this process touches the pages, and it asks the
// engine first.
class PagesWithoutRights final : public GuestPages {
 public:
  PagesWithoutRights(XenCalls& xen, DomainId domain)
      : pages_(xen, domain),
        place_(static_cast<std::byte*>(
            ::mmap(nullptr, dsm::kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {}
  ~PagesWithoutRights() override { ::munmap(place_, dsm::kPageSize); }
  // As with a right, the page is there afterwards.
  int set_access(dsm::Gfn first, std::uint32_t count, Access) noexcept override {
    const std::lock_guard guard(lock_);
    for (dsm::Gfn gfn = first; gfn < first + count; ++gfn) {
      if (const int error = pages_.map(gfn, place_); error != 0) return error;
    }
    return 0;
  }
  int map(dsm::Gfn gfn, std::byte* at) noexcept override { return pages_.map(gfn, at); }
  int give_back(const dsm::Gfn* gfns, std::uint32_t count, std::uint64_t ready) noexcept override {
    return pages_.give_back(gfns, count, ready);
  }
  int on_demand(OnDemandFacts& facts) noexcept override { return pages_.on_demand(facts); }
  int keep_ready(const OnDemandFacts& now, std::uint64_t ready) noexcept override {
    return pages_.keep_ready(now, ready);
  }

 private:
  XenGuestPages pages_;
  std::mutex lock_;
  std::byte* const place_;
};

struct Half {
  std::unique_ptr<PagesWithoutRights> guest;
  std::unique_ptr<PageAccess> pages;
};

class LargeDomain {
 public:
  LargeDomain(XenCalls& xen, DomainId home, DomainId remote) : xen_(xen), domains_{home, remote} {}

  // Both domains are paused. Returns how many pages have contents.
  Result<dsm::Gfn> start() {
    if (Status empty = prepare_on_demand(xen_, domains_[1], 0, kPages, false); !empty)
      return empty.error();
    if (Status joined = engines_.join(kPages, 0); !joined) return joined.error();
    for (unsigned i = 0; i < kSlices; ++i) {
      halves_[i].guest = std::make_unique<PagesWithoutRights>(xen_, domains_[i]);
      auto made = PageAccess::create(*halves_[i].guest, {kPages, 1});
      if (!made) return made.error();
      halves_[i].pages = std::move(*made);
      if (Status started = engines_.start(i, *halves_[i].pages); !started) return started.error();
    }
    const auto kept = keep_contents(xen_, domains_[0], kPages, false);
    if (!kept) return kept.error();
    dsm::Gfn with_contents = 0;
    for (const GfnRun& run : kept->runs) {
      halves_[0].pages->adopt(run.first, run.count);
      if (!acquire(0, run.first, run.count, dsm::Right::kExclusive)) return lost(0);
      with_contents += run.count;
    }
    for (Half& half : halves_) {
      if (const int error = half.pages->prime(); error != 0)
        return system_error(error, "no stock of pages");
    }
    return with_contents;
  }

  Status write_own(unsigned self) {
    const dsm::Gfn first = kFirst + self * kOwn;
    if (!acquire(self, first, kOwn, dsm::Right::kExclusive)) return lost(self);
    for (dsm::Gfn gfn = first; gfn < first + kOwn; ++gfn) {
      std::uint64_t* words = frame(self, gfn);
      if (words == nullptr) return Error{EFAULT, fmt::format("page {:x} is not there", gfn)};
      words[0] = words[511] = gfn * 3 + 1;
      halves_[self].pages->settle(gfn);
    }
    return {};
  }
  // Pages of which `owner` has written the contents.
  Status read(unsigned self, unsigned owner, dsm::Gfn count) {
    const dsm::Gfn first = kFirst + owner * kOwn;
    if (!acquire(self, first, count, dsm::Right::kShared)) return lost(self);
    for (dsm::Gfn gfn = first; gfn < first + count; ++gfn) {
      const std::uint64_t* words = frame(self, gfn);
      if (words == nullptr || words[0] != gfn * 3 + 1 || words[511] != gfn * 3 + 1)
        return Error{EILSEQ, fmt::format("slice {}: page {:x} is wrong", self, gfn)};
      halves_[self].pages->settle(gfn);
    }
    return {};
  }
  std::uint64_t memory(unsigned self) const {
    const auto facts = xen_.domain(domains_[self]);
    return facts ? facts->pages : 0;
  }

 private:
  bool acquire(unsigned self, dsm::Gfn first, dsm::Gfn count, dsm::Right right) {
    return engines_[self].acquire_range(first, count, right) == dsm::Outcome::kGranted;
  }
  std::uint64_t* frame(unsigned self, dsm::Gfn gfn) {
    return reinterpret_cast<std::uint64_t*>(halves_[self].pages->frame(gfn));
  }
  Error lost(unsigned self) { return {EIO, engines_[self].stop_cause()}; }

  XenCalls& xen_;
  const DomainId domains_[kSlices];
  Half halves_[kSlices];
  EnginePair engines_;  // after the pages: it is gone before they are
};

}  // namespace

int use_little_memory(XenCalls& xen, DomainId home, DomainId remote) {
  LargeDomain domain(xen, home, remote);
  fmt::print("made: {} and {} pages\n", domain.memory(0), domain.memory(1));
  const auto contents = domain.start();
  if (!contents) return fail(contents.error().message);
  fmt::print("spanning: {} and {} pages, {} with contents\n", domain.memory(0), domain.memory(1),
             *contents);
  for (unsigned self = 0; self < kSlices; ++self) {
    if (Status wrote = domain.write_own(self); !wrote) return fail(wrote.error().message);
  }
  for (unsigned self = 0; self < kSlices; ++self) {
    if (Status read = domain.read(self, 1 - self, kRead); !read) return fail(read.error().message);
    if (Status own = domain.read(self, self, kOwn); !own) return fail(own.error().message);
  }
  const std::uint64_t touched = *contents + kSlices * kOwn;
  const std::uint64_t used = domain.memory(0) + domain.memory(1);
  fmt::print("{} pages of {} touched, {} + {} = {} pages of memory: {:.2f} times as much\n",
             touched, kPages, domain.memory(0), domain.memory(1), used,
             static_cast<double>(used) / static_cast<double>(touched));
  return used * 10 < touched * 13 ? 0 : fail("more memory than 1.3 times what is touched");
}

}  // namespace xenspan::lab
