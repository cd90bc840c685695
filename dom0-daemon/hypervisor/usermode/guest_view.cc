#include "dom0-daemon/hypervisor/usermode/guest_view.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "dom0-daemon/hypervisor/usermode/frame_block.h"

// Debian 12's headers are of Linux 6.1; the value is that of include/uapi/linux/userfaultfd.h
// since 6.4.
#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP (std::uint64_t{1} << 1)
#endif

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint64_t kBytes = kWindowEnd - kWindowStart;
constexpr std::uint64_t kFeatures = UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
                                    UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_SIGBUS;
constexpr dsm::Gfn kNone = ~dsm::Gfn{0};
thread_local dsm::Gfn expected_mapped = kNone;

constexpr std::uint32_t kMostPieces = 64;  // pages written to their frames by one call
constexpr std::uint32_t kAround = 64;  // pages of untouched memory mapped by one fault (256 KiB)
constexpr dsm::Gfn kBlock = kBlockBytes >> dsm::kPageShift;
constexpr std::uint32_t kFewForBlock = 4;  // fewer pages than this are not worth a block's memory
// Whose frames this thread has made last. No more than a hint: copying makes them as well.
thread_local dsm::Gfn made_block = kNone;

Result<UniqueFd> open_userfaultfd() {
  // The device first: it serves users who were given access to it, whatever
  // vm.unprivileged_userfaultfd says.
  UniqueFd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (device) {
    const int fd =
        ::ioctl(device.get(), _IO(0xAA, 0x00) /* USERFAULTFD_IOC_NEW */, O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) return UniqueFd(fd);
  }
  // User faults alone are wanted (SIGBUS mode), which an ordinary user may ask for on Linux 5.11
  // and later.
  int fd = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
  if (fd < 0 && errno == EPERM)
    fd = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));
  if (fd < 0)
    return system_error(
        errno, "no right to use userfaultfd",
        "start xenspand as root, or allow it with `sysctl vm.unprivileged_userfaultfd=1`");
  return UniqueFd(fd);
}

}  // namespace

Result<std::unique_ptr<GuestView>> GuestView::create(const LayoutTable& layout, Protect protect) {
  std::unique_ptr<GuestView> view(new GuestView(layout));
  view->by_copy_ = protect == Protect::kCopy;
  if (Status status = view->open(); !status) return status.error();
  return view;
}

Status GuestView::open() {
  auto faults = open_userfaultfd();
  if (!faults) return faults.error();
  faults_ = std::move(*faults);
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = kFeatures;
  if (::ioctl(faults_.get(), UFFDIO_API, &api) != 0)
    return system_error(errno, "userfaultfd lacks what user-mode domains need",
                        "use Linux 6.1 or newer");
  memory_.reset(::memfd_create("xenspan-guest", MFD_CLOEXEC));
  if (!memory_ || ::ftruncate(memory_.get(), kBytes) != 0)
    return system_error(errno, "cannot make the guest's memory file");
  void* guest =
      ::mmap(reinterpret_cast<void*>(kWindowStart), kBytes, PROT_READ | PROT_WRITE | PROT_EXEC,
             MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_NORESERVE, memory_.get(), 0);
  if (guest == MAP_FAILED || guest != reinterpret_cast<void*>(kWindowStart))
    return system_error(
        errno, "cannot map the guest's address window at 0x10000",
        "set vm.mmap_min_addr to 65536 or less and leave address randomisation as it is");
  // A core dump would walk a terabyte of addresses while the other hosts wait for this one.
  ::madvise(guest, kBytes, MADV_DONTDUMP);
  own_ = map_frames();
  if (own_ == nullptr) return system_error(errno, "cannot map the frames a second time");
  uffdio_register range{};
  range.range.start = kWindowStart;
  range.range.len = kBytes;
  range.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP;
  if (::ioctl(faults_.get(), UFFDIO_REGISTER, &range) != 0)
    return system_error(errno, "userfaultfd refuses the guest's memory",
                        "use Linux 6.1 or newer with CONFIG_PTE_MARKER_UFFD_WP");
  // One page tried for real: that is how an older kernel shows that it does not know the mode.
  own_[0] = std::byte{0};
  int error = map(0, 1, false);
  if (error == EINVAL && !by_copy_) {
    by_copy_ = true;
    error = map(0, 1, false);
  }
  if (error != 0)
    return system_error(error, "userfaultfd cannot map a page write-protected",
                        "use Linux 6.1 or newer with CONFIG_PTE_MARKER_UFFD_WP");
  withdraw(0);
  drop_frame(0);
  try_blocks();
  return {};
}

// Aligned as blocks have to be.
std::byte* GuestView::map_frames() noexcept {
  void* const reserved = ::mmap(nullptr, kBytes + kBlockBytes, PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<std::uint64_t>(reserved);
  const std::uint64_t at = (start + kBlockBytes - 1) & ~std::uint64_t{kBlockBytes - 1};
  void* const frames = ::mmap(reinterpret_cast<void*>(at), kBytes, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_FIXED | MAP_NORESERVE, memory_.get(), 0);
  if (at > start) ::munmap(reserved, at - start);
  ::munmap(reinterpret_cast<void*>(at + kBytes), start + kBlockBytes - at);
  if (frames == MAP_FAILED) return nullptr;
  ::madvise(frames, kBytes, MADV_DONTDUMP);
  return static_cast<std::byte*>(frames);
}

// Whether frames come in blocks is seen from what the first one takes: it depends on the kernel
// (6.11) and on a setting of it (the daemon's frame_blocks.h).
void GuestView::try_blocks() noexcept {
  blocks_ = map_frames();
  if (blocks_ == nullptr) return;
  const bool given = ::madvise(blocks_, kBytes, MADV_HUGEPAGE) == 0 &&
                     ::madvise(blocks_, dsm::kPageSize, MADV_POPULATE_WRITE) == 0 &&
                     frames_bytes() == kBlockBytes;
  drop_run(0, kBlock);
  if (given) return;
  ::munmap(blocks_, kBytes);
  blocks_ = nullptr;
}

GuestView::~GuestView() {
  if (own_ == nullptr) return;
  if (blocks_ != nullptr) ::munmap(blocks_, kBytes);
  ::munmap(own_, kBytes);
  ::munmap(reinterpret_cast<void*>(kWindowStart), kBytes);
}

// The frame's page is replaced by one that is mapped write-protected from its first moment. Nobody
// else looks at the frame meanwhile: the engine holds this gfn's lock, and a guest thread that
// touches the page waits for that lock.
int GuestView::map_by_copy(dsm::Gfn gfn) noexcept {
  alignas(64) std::byte contents[dsm::kPageSize];
  std::memcpy(contents, frame(gfn), sizeof contents);
  uffdio_copy request{};
  request.dst = address_of(gfn);
  request.src = reinterpret_cast<std::uint64_t>(contents);
  request.len = dsm::kPageSize;
  request.mode = UFFDIO_COPY_MODE_WP;
  if (const int error = drop_run(gfn, 1); error != 0) return error;
  while (::ioctl(faults_.get(), UFFDIO_COPY, &request) != 0)
    if (errno != EAGAIN) return errno;
  return 0;
}

int GuestView::map(dsm::Gfn first, std::uint32_t count, bool writable) noexcept {
  if (!writable && by_copy_) {
    for (std::uint32_t i = 0; i < count; ++i)
      if (const int error = map_by_copy(first + i); error != 0) return error;
    return 0;
  }
  uffdio_continue request{};
  request.range.start = address_of(first);
  request.range.len = std::uint64_t{count} << dsm::kPageShift;
  request.mode = writable ? 0 : UFFDIO_CONTINUE_MODE_WP;
  while (::ioctl(faults_.get(), UFFDIO_CONTINUE, &request) != 0) {
    if (errno != EAGAIN) return errno;
    // The address space was changing (another thread in mmap), or part of the range is done: go on
    // behind it.
    if (request.mapped > 0) {
      request.range.start += static_cast<std::uint64_t>(request.mapped);
      request.range.len -= static_cast<std::uint64_t>(request.mapped);
      request.mapped = 0;
    }
  }
  return 0;
}

int GuestView::write_protect(dsm::Gfn first, std::uint32_t count, bool on) noexcept {
  uffdio_writeprotect request{};
  request.range.start = address_of(first);
  request.range.len = std::uint64_t{count} << dsm::kPageShift;
  request.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
  while (::ioctl(faults_.get(), UFFDIO_WRITEPROTECT, &request) != 0)
    if (errno != EAGAIN) return errno;
  return 0;
}

// How many of these pages, the first and those behind it, are mapped writable, or are not, as the
// first.
std::uint32_t GuestView::alike(dsm::Gfn first, std::uint32_t count,
                               dsm::Right right) const noexcept {
  const bool as_first = writable(first, right);
  std::uint32_t run = 1;
  while (run < count && writable(first + run, right) == as_first) ++run;
  return run;
}

int GuestView::grant(dsm::Gfn first, std::uint32_t count, dsm::Right right) noexcept {
  const bool writable = this->writable(first, right);
  if (const std::uint32_t run = alike(first, count, right); run < count) {
    const int error = grant(first, run, right);
    return error != 0 ? error : grant(first + run, count - run, right);
  }
  if (count > 1) {
    if (const int error = make_frames(first, count); error != 0) return error;
    if (map(first, count, writable) == 0) return 0;
    for (std::uint32_t i = 0; i < count; ++i)  // something in the run is mapped already
      if (const int error = grant(first + i, 1, right); error != 0) return error;
    return 0;
  }
  // Lifting the protection of a page that has been withdrawn meanwhile does nothing: the vCPU
  // faults once more.
  if (writable && expected_mapped == first) {
    expected_mapped = kNone;
    return write_protect(first, 1, false);
  }
  int error = map(first, 1, writable);
  if (error == EFAULT) {  // a frame never touched: the memory file has a hole there
    __atomic_fetch_or(reinterpret_cast<unsigned char*>(frame(first)), 0, __ATOMIC_RELAXED);
    error = map(first, 1, writable);
  }
  if (error == EEXIST) error = write_protect(first, 1, !writable);
  return error;
}

int GuestView::populate(std::byte* frames, dsm::Gfn first, dsm::Gfn end) noexcept {
  if (first == end) return 0;
  const int result = ::madvise(frames + (first << dsm::kPageShift),
                               (end - first) << dsm::kPageShift, MADV_POPULATE_WRITE);
  return result == 0 ? 0 : errno;
}

// Fresh memory, with as few calls as may be: whole blocks in the blocks' view, what is before and
// behind them in the engine's own.
int GuestView::make_frames(dsm::Gfn first, std::uint32_t count) noexcept {
  const dsm::Gfn end = first + count;
  const dsm::Gfn from = (first + kBlock - 1) & ~(kBlock - 1), to = end & ~(kBlock - 1);
  if (blocks_ == nullptr || from >= to) return populate(own_, first, end);
  int error = populate(own_, first, from);
  if (error == 0) error = populate(blocks_, from, to);
  return error == 0 ? populate(own_, to, end) : error;
}

// Pages of a run that goes on: their frames are made with those of their whole blocks, of which the
// rest is likely to come next.
bool GuestView::fill_blocks(dsm::Gfn first, std::uint32_t count,
                            const std::byte* const* contents) noexcept {
  if (blocks_ == nullptr || count < kFewForBlock) return false;
  const dsm::Gfn end = (first + count + kBlock - 1) & ~(kBlock - 1);
  dsm::Gfn from = first & ~(kBlock - 1);
  if (end > kWindowPages) return false;
  if (from == made_block) from += kBlock;
  if (populate(blocks_, from, end) != 0) return false;
  made_block = end - kBlock;
  for (std::uint32_t i = 0; i < count; ++i)
    std::memcpy(blocks_ + ((first + i) << dsm::kPageShift), contents[i], dsm::kPageSize);
  return true;
}

void GuestView::expect_mapped(dsm::Gfn gfn) noexcept { expected_mapped = gfn; }

int GuestView::protect_run(dsm::Gfn first, std::uint32_t count) noexcept {
  return write_protect(first, count, true);
}

// What is not mapped after all stays so, and faults once more.
int GuestView::raise_run(dsm::Gfn first, std::uint32_t count) noexcept {
  for (std::uint32_t run; count > 0; first += run, count -= run) {
    run = alike(first, count, dsm::Right::kExclusive);
    if (!writable(first, dsm::Right::kExclusive)) continue;  // mapped read-only, and stays so
    if (const int error = write_protect(first, run, false); error != 0) return error;
  }
  return 0;
}

// Frames that have no memory yet get theirs with their contents, by one call: no fault of the
// engine's own view for each, and no zeros that are overwritten. false: do it another way.
bool GuestView::write_frames(dsm::Gfn first, std::uint32_t count,
                             const std::byte* const* contents) noexcept {
  iovec pieces[kMostPieces];
  for (std::uint32_t done = 0; done < count;) {
    const std::uint32_t run = std::min(count - done, kMostPieces);
    for (std::uint32_t i = 0; i < run; ++i)
      pieces[i] = {const_cast<std::byte*>(contents[done + i]), dsm::kPageSize};
    const ssize_t wanted = static_cast<ssize_t>(run) << dsm::kPageShift;
    const auto at = static_cast<off_t>((first + done) << dsm::kPageShift);
    if (::pwritev(memory_.get(), pieces, static_cast<int>(run), at) != wanted) return false;
    done += run;
  }
  return true;
}

// Frames without memory, contents that lie behind each other, pages that are all mapped alike:
// the kernel allocates, copies and maps in one go. How many of them that was.
std::uint32_t GuestView::fill_at_once(dsm::Gfn first, std::uint32_t count, bool writable,
                                      const std::byte* contents) noexcept {
  uffdio_copy request{};
  request.dst = address_of(first);
  request.src = reinterpret_cast<std::uint64_t>(contents);
  request.len = std::uint64_t{count} << dsm::kPageShift;
  request.mode = writable ? 0 : UFFDIO_COPY_MODE_WP;
  const int result = ::ioctl(faults_.get(), UFFDIO_COPY, &request);
  // Where it stops: a frame has memory after all, or the address space is changing.
  if (result != 0 && (errno != EAGAIN || request.copy <= 0)) return 0;
  return static_cast<std::uint32_t>(request.copy >> dsm::kPageShift);
}

int GuestView::fill_run(dsm::Gfn first, std::uint32_t count, dsm::Right right,
                        const std::byte* const* contents, bool fresh) noexcept {
  const bool filled = fresh && fill_blocks(first, count, contents);
  while (fresh && !filled && count > 1) {
    std::uint32_t run = 1;
    while (run < count && contents[run] == contents[run - 1] + dsm::kPageSize) ++run;
    run = alike(first, run, right);
    if (run == 1) break;
    const std::uint32_t done = fill_at_once(first, run, writable(first, right), *contents);
    first += done, contents += done, count -= done;
    if (done < run) break;
  }
  if (count == 0) return 0;
  if (!filled && (!fresh || !write_frames(first, count, contents))) {
    for (std::uint32_t i = 0; i < count; ++i)
      std::memcpy(frame(first + i), contents[i], dsm::kPageSize);
  }
  for (std::uint32_t run; count > 0; first += run, count -= run) {
    run = alike(first, count, right);
    int error = map(first, run, writable(first, right));
    // Something in the run is mapped already.
    for (std::uint32_t i = 0; error != 0 && i < run; ++i) {
      if (const int single = grant(first + i, 1, right); single != 0) return single;
    }
  }
  return 0;
}

int GuestView::withdraw_run(dsm::Gfn first, std::uint32_t count) noexcept {
  const int result = ::madvise(reinterpret_cast<void*>(address_of(first)),
                               std::uint64_t{count} << dsm::kPageShift, MADV_DONTNEED);
  return result == 0 ? 0 : errno;
}

// Part of a block: the kernel takes the block apart, and out of all mappings. What is left of it is
// mapped again when it is touched.
int GuestView::drop_run(dsm::Gfn first, std::uint32_t count) noexcept {
  const int result = ::fallocate(memory_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                 static_cast<off_t>(first << dsm::kPageShift),
                                 static_cast<off_t>(count) << dsm::kPageShift);
  return result == 0 ? 0 : errno;
}

dsm::PageBackend::Run GuestView::fault_around(dsm::Gfn gfn) noexcept {
  const std::uint8_t byte = layout_.at(gfn);
  const dsm::Gfn block = gfn & ~dsm::Gfn{kAround - 1};
  dsm::Gfn first = gfn, end = gfn + 1;
  while (first > block && layout_.at(first - 1) == byte) --first;
  while (end < block + kAround && end < kWindowPages && layout_.at(end) == byte) ++end;
  return {first, static_cast<std::uint32_t>(end - first)};
}

std::uint64_t GuestView::frames_bytes() const {
  struct stat status {};
  if (::fstat(memory_.get(), &status) != 0) return 0;
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

}  // namespace xenspan::hypervisor::usermode
