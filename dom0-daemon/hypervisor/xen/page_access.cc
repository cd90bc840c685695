#include "dom0-daemon/hypervisor/xen/page_access.h"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace xenspan::hypervisor::xen {

Result<std::unique_ptr<PageAccess>> PageAccess::create(GuestPages& pages, const Config& config) {
  std::unique_ptr<PageAccess> access(new PageAccess(pages, config));
  auto window = ForeignWindow::create(pages, config.count, config.most_mapped);
  if (!window) return window.error();
  access->window_ = std::move(*window);
  void* bytes = ::mmap(nullptr, config.count, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (bytes == MAP_FAILED) return system_error(errno, "no memory for the states of the pages");
  access->bytes_ = static_cast<Byte*>(bytes);
  return access;
}

PageAccess::PageAccess(GuestPages& pages, const Config& config)
    : pages_(pages),
      count_(config.count),
      populate_(pages, config.vcpus),
      batch_(std::clamp(config.most_mapped / 8, 1u, GuestPages::kMostAtOnce)),
      dropped_(std::max(config.keep_lost, batch_)) {}

PageAccess::~PageAccess() {
  if (bytes_ != nullptr) ::munmap(static_cast<void*>(bytes_), count_);
}

void PageAccess::adopt(dsm::Gfn first, dsm::Gfn count) noexcept {
  constexpr auto kOwn = static_cast<std::uint8_t>(
      kHeld | static_cast<unsigned>(dsm::Right::kExclusive) << kRightShift);
  for (dsm::Gfn gfn = first; gfn < first + count; ++gfn) bytes_[gfn].store(kOwn);
}

PageAccess::State PageAccess::state(dsm::Gfn gfn) const noexcept {
  return static_cast<State>(bytes_[gfn].load() & kState);
}

dsm::Right PageAccess::right(dsm::Gfn gfn) const noexcept {
  return static_cast<dsm::Right>(bytes_[gfn].load() >> kRightShift);
}

bool PageAccess::become(dsm::Gfn gfn, State from, State to) noexcept {
  std::uint8_t seen = bytes_[gfn].load();
  while ((seen & kState) == from) {
    const auto next = static_cast<std::uint8_t>((seen & ~unsigned{kState}) | to);
    if (bytes_[gfn].compare_exchange_weak(seen, next)) return true;
  }
  return false;
}

void PageAccess::set_right(dsm::Gfn gfn, dsm::Right right) noexcept {
  std::uint8_t seen = bytes_[gfn].load();
  std::uint8_t next;
  do {
    next = static_cast<std::uint8_t>((seen & kState) | static_cast<unsigned>(right) << kRightShift);
  } while (!bytes_[gfn].compare_exchange_weak(seen, next));
}

// Has the page's memory there, with zeros when it counts as empty.
int PageAccess::hold(dsm::Gfn gfn) noexcept {
  for (;;) {
    const State now = state(gfn);
    if (now == kHeld) return 0;
    if (now == kBusy) {
      ::sched_yield();
    } else if (become(gfn, now, kBusy)) {
      const int error = fill_in(gfn, now);
      become(gfn, kBusy, error == 0 ? kHeld : now);
      return error;
    }
  }
}

// A page on demand is mapped here when it is populated, so that Xen does not take it back while it
// is all zero (README.md).
int PageAccess::fill_in(dsm::Gfn gfn, State before) noexcept {
  if (before == kOnDemand) {
    if (const int error = populate_.expect(1); error != 0) return error;
    return window_->use(gfn, false);
  }
  if (const int error = window_->use(gfn, true); error != 0) return error;
  std::memset(window_->place(gfn), 0, dsm::kPageSize);
  return 0;
}

std::byte* PageAccess::frame(dsm::Gfn gfn) noexcept {
  if (gfn >= count_ || hold(gfn) != 0) return nullptr;
  // Without a right it is asked for to be filled: it is then granted, or dropped.
  const bool to_fill = right(gfn) == dsm::Right::kInvalid;
  return window_->use(gfn, to_fill) == 0 ? window_->place(gfn) : nullptr;
}

int PageAccess::grant(dsm::Gfn first, std::uint32_t count, dsm::Right right) noexcept {
  for (dsm::Gfn gfn = first; gfn < first + count; ++gfn) {
    if (const int error = hold(gfn); error != 0) return error;
  }
  if (const int error = pages_.set_access(first, count, access_of(right)); error != 0) return error;
  for (dsm::Gfn gfn = first; gfn < first + count; ++gfn) {
    set_right(gfn, right);
    window_->settle(gfn);
  }
  return 0;
}

int PageAccess::protect(dsm::Gfn gfn) noexcept {
  if (const int error = pages_.set_access(gfn, 1, Access::kReadExecute); error != 0) return error;
  set_right(gfn, dsm::Right::kShared);
  return 0;
}

// What is on demand has no rights anyway, and setting one would populate it.
int PageAccess::withdraw_run(dsm::Gfn first, std::uint32_t count) noexcept {
  const dsm::Gfn end = first + count;
  for (dsm::Gfn gfn = first; gfn < end;) {
    dsm::Gfn next = gfn;
    while (next < end && state(next) != kOnDemand) ++next;
    if (next == gfn) {
      ++gfn;
      continue;
    }
    const auto run = static_cast<std::uint32_t>(next - gfn);
    if (const int error = pages_.set_access(gfn, run, Access::kNone); error != 0) return error;
    for (; gfn < next; ++gfn) set_right(gfn, dsm::Right::kInvalid);
  }
  return 0;
}

int PageAccess::drop_frame(dsm::Gfn gfn) noexcept {
  window_->settle(gfn);
  if (!become(gfn, kHeld, kDropped)) return 0;
  for (;;) {
    {
      const std::lock_guard guard(lock_);
      if (listed_ < dropped_.size()) {
        dropped_[(oldest_ + listed_++) % dropped_.size()] = gfn;
        return 0;
      }
    }
    if (const int error = give_back_oldest(batch_); error != 0) return error;
  }
}

int PageAccess::give_back_dropped() noexcept {
  for (;;) {
    {
      const std::lock_guard guard(lock_);
      if (listed_ == 0) return 0;
    }
    if (const int error = give_back_oldest(batch_); error != 0) return error;
  }
}

int PageAccess::give_back_oldest(std::uint32_t most) noexcept {
  dsm::Gfn batch[GuestPages::kMostAtOnce];
  std::uint32_t taken = 0, count = 0;
  {
    const std::lock_guard guard(lock_);
    for (; taken < most && listed_ > 0; --listed_) {
      batch[taken++] = dropped_[oldest_];
      oldest_ = (oldest_ + 1) % dropped_.size();
    }
  }
  // A page that has been held again since then stays.
  for (std::uint32_t i = 0; i < taken; ++i) {
    if (become(batch[i], kDropped, kBusy)) batch[count++] = batch[i];
  }
  return count == 0 ? 0 : give_back(batch, count);
}

// All of them busy, by this thread. Each is mapped here while Xen takes it: otherwise Xen may find
// that the 2 MiB around it are all zero, and make one large entry of them (README.md).
int PageAccess::give_back(const dsm::Gfn* gfns, std::uint32_t count) noexcept {
  int error = 0;
  for (std::uint32_t i = 0; i < count && error == 0; ++i) error = window_->use(gfns[i], true);
  if (error == 0) error = populate_.give_back(gfns, count);
  for (std::uint32_t i = 0; i < count; ++i) {
    const int dropped = window_->drop(gfns[i]);
    if (error == 0) error = dropped;
    become(gfns[i], kBusy, error == 0 ? kOnDemand : kDropped);
  }
  return error;
}

}  // namespace xenspan::hypervisor::xen
