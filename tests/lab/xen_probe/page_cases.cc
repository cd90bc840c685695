// Rights and pages.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "dom0-daemon/hypervisor/xen/capabilities.h"
#include "dom0-daemon/hypervisor/xen/monitor_ring.h"
#include "dom0-daemon/hypervisor/xen/page_access.h"
#include "tests/lab/xen_probe/cases.h"

namespace xenspan::lab {

using namespace hypervisor::xen;  // NOLINT: this program is about it

int show_rights(XenCalls& xen, DomainId domain) {
  unsigned write = 0, read = 0, none = 0;
  constexpr dsm::Gfn kGuest = 4096;  // its memory: beyond it are pages of Xen and its tools
  for (dsm::Gfn gfn = 0; gfn < kGuest; ++gfn) {
    const Access access = xen.access_of(domain, gfn);
    ++(access == Access::kAll ? write : access == Access::kReadExecute ? read : none);
  }
  fmt::print("{} pages to write, {} to read, {} not to touch\n", write, read, none);
  return 0;
}

// What the facts say has to be what Xen does: a right is set on one page, and taken back.
int show_capability(XenCalls& xen, DomainId domain) {
  const auto host = xen.host();
  if (!host) return fail(host.error().message);
  const auto facts = xen.domain(domain);
  if (!facts) return fail(facts.error().message);
  auto ring = MonitorRing::open(xen, domain);
  if (!ring) return fail(ring.error().message);
  constexpr dsm::Gfn kSome = 0x300;
  const int error = xen.set_access(domain, kSome, 1, Access::kReadExecute);
  if (error == 0) xen.set_access(domain, kSome, 1, Access::kAll);
  fmt::print("Xen {}.{}: setting a right: {}\n", host->version_major, host->version_minor,
             std::strerror(error));
  Status verdict = may_hold_slice(*host);
  if (verdict) verdict = may_be_slice(*facts);
  if (verdict.ok() != (error == 0)) return fail("the verdict is not what Xen does");
  if (verdict) return 0;
  fmt::print("refused: {}\n", verdict.error().message);
  return kRefused;
}

namespace {

constexpr dsm::Gfn kFirst = 0x800, kCount = 0x3000, kUsed = 600;  // of 64 MiB
constexpr std::uint64_t kStock = 700;  // pages that may be ready beside those in use
constexpr std::uint32_t kMostMapped = 64;

std::uint64_t* words_of(PageAccess& access, dsm::Gfn gfn) {
  return reinterpret_cast<std::uint64_t*>(access.frame(gfn));
}

bool is_zero(const std::uint64_t* words) {
  return words != nullptr && std::all_of(words, words + 512, [](auto word) { return word == 0; });
}

// A right settles a page; a machine without mem_access has none, and then the test does.
std::string fill(PageAccess& access) {
  for (dsm::Gfn gfn = kFirst; gfn < kFirst + kUsed; ++gfn) {
    std::uint64_t* words = words_of(access, gfn);
    if (!is_zero(words)) return fmt::format("page {:x} is not there, or not zero", gfn);
    std::fill_n(words, 512, gfn);
    access.settle(gfn);
  }
  for (dsm::Gfn gfn = kFirst; gfn < kFirst + kUsed; ++gfn) {
    const std::uint64_t* words = words_of(access, gfn);
    if (words == nullptr || words[0] != gfn || words[511] != gfn)
      return fmt::format("page {:x} has lost its contents", gfn);
    access.settle(gfn);
  }
  if (access.mapped() > kMostMapped) return fmt::format("{} pages are mapped", access.mapped());
  return {};
}

std::string give_back(PageAccess& access) {
  for (dsm::Gfn gfn = kFirst; gfn < kFirst + kUsed; ++gfn) {
    if (const int error = access.drop_frame(gfn); error != 0)
      return fmt::format("page {:x} cannot be dropped: {}", gfn, std::strerror(error));
  }
  // One that is used again before it has been given back.
  if (!is_zero(words_of(access, kFirst + kUsed - 1))) return "a dropped page is not zero";
  if (const int error = access.drop_frame(kFirst + kUsed - 1); error != 0) return "dropped twice";
  const int error = access.give_back_dropped();
  return error == 0 ? "" : fmt::format("pages cannot be given back: {}", std::strerror(error));
}

OnDemandFacts show(XenCalls& xen, DomainId domain, const char* when) {
  OnDemandFacts facts;
  xen.on_demand(domain, facts);
  fmt::print("{}: {} pages, {} of them ready, {} entries\n", when, facts.pages, facts.ready,
             facts.entries);
  return facts;
}

}  // namespace

int fill_pages(XenCalls& xen, DomainId domain) {
  const OnDemandFacts start = show(xen, domain, "start");
  if (Status marked = prepare_on_demand(xen, domain, kFirst, kCount, false); !marked)
    return fail(marked.error().message);
  const OnDemandFacts empty = show(xen, domain, "marked");
  if (empty.entries != start.entries + kCount) return fail("not every page became an entry");
  if (empty.pages + kCount != start.pages) return fail("not all memory was given back");
  XenGuestPages pages(xen, domain);
  auto access = PageAccess::create(pages, {kFirst + kCount, 1, kMostMapped});
  if (!access) return fail(access.error().message);
  for (int pass = 0; pass < 3; ++pass) {
    if (const std::string wrong = fill(**access); !wrong.empty()) return fail(wrong);
    const OnDemandFacts full = show(xen, domain, "filled");
    if (full.pages > empty.pages + kUsed + kStock) return fail("more memory than pages in use");
    if (full.entries + kUsed != empty.entries) return fail("entries and pages do not add up");
    if (const std::string wrong = give_back(**access); !wrong.empty()) return fail(wrong);
    const OnDemandFacts after = show(xen, domain, "given back");
    if (after.entries != empty.entries) return fail("not every page became an entry again");
    if (after.pages > full.pages) return fail("giving back took memory");
  }
  return 0;
}

}  // namespace xenspan::lab
