// A stand-in for Xen's side of one domain's memory: on-demand entries, a stock that must never be
// empty, rights, and pages that can be mapped anywhere. What real Xen would answer with a crash of
// the domain, or with a silent loss, is counted, for the test to see.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <vector>

#include "base/unique_fd.h"
#include "dom0-daemon/hypervisor/xen/guest_pages.h"

namespace xenspan::hypervisor::xen::test {

class FakeGuestPages final : public GuestPages {
 public:
  explicit FakeGuestPages(dsm::Gfn count) : pages_(count) {
    memory_.reset(::memfd_create("fake-domain", MFD_CLOEXEC));
    if (::ftruncate(memory_.get(), static_cast<off_t>(count * dsm::kPageSize)) != 0) ::abort();
    own_ = static_cast<std::byte*>(::mmap(nullptr, count * dsm::kPageSize, PROT_READ | PROT_WRITE,
                                          MAP_SHARED, memory_.get(), 0));
  }
  ~FakeGuestPages() override { ::munmap(own_, pages_.size() * dsm::kPageSize); }

  int set_access(dsm::Gfn first, std::uint32_t count, Access access) noexcept override {
    ++access_calls;
    for (dsm::Gfn gfn = first; gfn < first + count; ++gfn) {
      Page& page = pages_[gfn];
      const std::lock_guard guard(page.lock);
      populate(page);
      page.access = access;
    }
    return 0;
  }
  int map(dsm::Gfn gfn, std::byte* at) noexcept override {
    ++maps;
    if (fail_map) return ENOENT;
    const std::lock_guard guard(pages_[gfn].lock);
    populate(pages_[gfn]);
    void* got = ::mmap(at, dsm::kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                       memory_.get(), static_cast<off_t>(gfn * dsm::kPageSize));
    return got == MAP_FAILED ? errno : 0;
  }
  int give_back(const dsm::Gfn* gfns, std::uint32_t count, std::uint64_t ready) noexcept override {
    for (std::uint32_t i = 0; i < count; ++i) {
      Page& page = pages_[gfns[i]];
      const std::lock_guard guard(page.lock);
      if (!page.populated || page.access != Access::kNone) ++mistakes;
      page.populated = false;
      ::fallocate(memory_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  static_cast<off_t>(gfns[i] * dsm::kPageSize), dsm::kPageSize);
      const std::lock_guard counts(counts_lock_);
      // As Xen does it: kept as stock while there are more entries than pages ready.
      if (counts_.entries > counts_.ready) {
        ++counts_.ready;
      } else {
        --counts_.pages;
      }
      ++counts_.entries;
    }
    const OnDemandFacts now = facts();
    return keep_ready(now, std::min(ready, now.entries));
  }
  int on_demand(OnDemandFacts& facts) noexcept override {
    const std::lock_guard counts(counts_lock_);
    facts = counts_;
    return 0;
  }
  int keep_ready(const OnDemandFacts&, std::uint64_t ready) noexcept override {
    const std::lock_guard counts(counts_lock_);
    if (ready <= counts_.ready) return 0;
    if (fail_stock) return ENOMEM;
    counts_.pages += ready - counts_.ready;
    counts_.ready = ready;
    return 0;
  }

  // What a vCPU does: `touch` runs while the page keeps its right. false: it would fault.
  bool touch(dsm::Gfn gfn, Access needed, const std::function<void(std::byte*)>& touch) {
    Page& page = pages_[gfn];
    const std::lock_guard guard(page.lock);
    populate(page);
    if (page.access < needed) return false;
    touch(own_ + gfn * dsm::kPageSize);
    return true;
  }
  Access access(dsm::Gfn gfn) {
    const std::lock_guard guard(pages_[gfn].lock);
    return pages_[gfn].populated ? pages_[gfn].access : Access::kNone;
  }
  bool populated(dsm::Gfn gfn) {
    const std::lock_guard guard(pages_[gfn].lock);
    return pages_[gfn].populated;
  }
  OnDemandFacts facts() {
    OnDemandFacts now;
    on_demand(now);
    return now;
  }
  // The guest had this before the domain began to span.
  std::byte* put_before(dsm::Gfn gfn) {
    pages_[gfn].populated = true;
    pages_[gfn].access = Access::kAll;
    --counts_.entries;
    ++counts_.pages;
    return own_ + gfn * dsm::kPageSize;
  }
  void start() { counts_.entries += pages_.size(); }  // all are entries

  std::atomic<unsigned> maps{0}, access_calls{0}, mistakes{0}, crashes{0};
  std::atomic<bool> fail_map{false}, fail_stock{false};

 private:
  struct Page {
    std::mutex lock;
    bool populated = false;
    Access access = Access::kNone;
  };
  void populate(Page& page) {
    if (page.populated) return;
    const std::lock_guard counts(counts_lock_);
    if (counts_.ready == 0) {
      ++crashes;
    } else {
      --counts_.ready;
    }
    --counts_.entries;
    page.populated = true;
  }

  std::vector<Page> pages_;
  UniqueFd memory_;
  std::byte* own_ = nullptr;
  std::mutex counts_lock_;
  OnDemandFacts counts_;
};

}  // namespace xenspan::hypervisor::xen::test
