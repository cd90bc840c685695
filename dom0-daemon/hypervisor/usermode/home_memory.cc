// mmap(2) and its family at the home: the layout decides, pages follow.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "dom0-daemon/hypervisor/usermode/home.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint64_t kBlock = LayoutTable::kBlock;  // of who was told what about the layout

constexpr std::uint64_t round_up(std::uint64_t bytes) {
  return (bytes + dsm::kPageSize - 1) & ~(dsm::kPageSize - 1);
}

std::string path_of(int descriptor) {
  char text[PATH_MAX];
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  const ssize_t bytes = ::readlink(link.c_str(), text, sizeof text);
  return bytes > 0 ? std::string(text, static_cast<std::size_t>(bytes)) : std::string();
}

dsm::Gfn pages_of(const Range& range) { return range.bytes() >> dsm::kPageShift; }

}  // namespace

std::int64_t Home::memory_call(std::int64_t number, const std::array<std::uint64_t, 6>& args) {
  std::lock_guard guard(layout_lock_);
  switch (number) {
    case SYS_mmap: return map_call(args);
    case SYS_munmap: return carry_out(space_.munmap(args[0], args[1]));
    case SYS_mprotect:
      return carry_out(space_.mprotect(args[0], args[1], static_cast<int>(args[2])));
    case SYS_mremap:
      return carry_out(
          space_.mremap(args[0], args[1], args[2], static_cast<int>(args[3]), args[4]));
    case SYS_brk: return carry_out(space_.brk(args[0]));
    case SYS_madvise: return advise(args[0], args[1], static_cast<int>(args[2]));
    case SYS_msync: return sync_mapping(args[0], args[1]);
    default: return -ENOSYS;
  }
}

std::int64_t Home::map_call(const std::array<std::uint64_t, 6>& args) {
  const int prot = static_cast<int>(args[2]), flags = static_cast<int>(args[3]);
  const int descriptor = static_cast<int>(args[4]);
  if ((flags & MAP_ANONYMOUS) != 0)
    return carry_out(space_.mmap(args[0], args[1], prot, flags, -1, 0, ""));
  if (descriptor < 0 || descriptor >= services_.descriptor_limit) return -EBADF;
  const int mode = ::fcntl(descriptor, F_GETFL);
  if (mode < 0) return -EBADF;
  if ((mode & O_ACCMODE) == O_WRONLY) return -EACCES;
  const bool shared = (flags & MAP_TYPE) != MAP_PRIVATE;
  if (shared && (prot & PROT_WRITE) != 0 && (mode & O_ACCMODE) != O_RDWR) return -EACCES;
  struct stat status {};
  ::fstat(descriptor, &status);
  if (!S_ISREG(status.st_mode)) {
    // /dev/zero is anonymous memory by another name; other devices cannot be mapped into a spanning
    // domain.
    if (path_of(descriptor) == "/dev/zero")
      return carry_out(space_.mmap(args[0], args[1], prot, flags | MAP_ANONYMOUS, -1, 0, ""));
    return -ENODEV;
  }
  const int backing = next_backing_++;
  // Above the guest's descriptors, so that its numbering is not disturbed.
  UniqueFd file(::fcntl(descriptor, F_DUPFD_CLOEXEC, services_.descriptor_limit));
  if (!file) return -errno;
  const Change change =
      space_.mmap(args[0], args[1], prot, flags, backing, args[5], path_of(descriptor));
  if (change.result < 0 && change.result > -4096) return change.result;
  backings_.emplace(backing, std::move(file));
  const std::int64_t result = carry_out(change);
  collect_backings();
  return result;
}

std::int64_t Home::carry_out(const Change& change) {
  for (const Mapping& mapping : change.written_back) write_back(mapping, mapping.range);
  for (const Range& range : change.forbidden) forbid(range);
  for (const Change::Move& move : change.moved) {
    const dsm::Gfn from = gfn_of(move.from), to = gfn_of(move.to),
                   count = move.bytes >> dsm::kPageShift;
    if (services_.engine->acquire_range(from, count, dsm::Right::kShared) !=
            dsm::Outcome::kGranted ||
        services_.engine->acquire_range(to, count, dsm::Right::kExclusive) !=
            dsm::Outcome::kGranted)
      return -EIO;
    std::memcpy(services_.view->frame(to), services_.view->frame(from), move.bytes);
  }
  for (const Range& range : change.discarded)
    if (services_.engine->discard(gfn_of(range.start), pages_of(range)) != dsm::Outcome::kGranted)
      return -EIO;
  for (const Mapping& mapping : change.filled)
    if (const std::int64_t error = fill(mapping); error != 0) return error;
  return change.result;
}

void Home::forbid(const Range& range) {
  services_.layout->forget(range);
  services_.engine->unmap(gfn_of(range.start), pages_of(range));
  ++layout_version_;
  dsm::HostMask told = 0;
  const std::uint64_t first = range.start / kBlock, last = (range.end - 1) / kBlock;
  if (last - first < known_by_.size()) {
    for (std::uint64_t block = first; block <= last; ++block)
      if (const auto found = known_by_.find(block); found != known_by_.end()) told |= found->second;
  } else {
    for (const auto& [block, hosts] : known_by_)
      if (block >= first && block <= last) told |= hosts;
  }
  for (dsm::HostId host = 0; host < services_.hosts.size(); ++host)
    if (host != services_.self && (told & dsm::mask_of(host)) != 0)
      services_.forbid(host, layout_version_, range);
}

void Home::layout_query(HomeThread& thread, std::uint64_t address, Packet& answer) {
  Writer out(answer);
  std::lock_guard guard(layout_lock_);
  const Mapping* mapping = in_window(address) ? space_.find(address) : nullptr;
  if (mapping == nullptr) {
    out.put(layout_version_).put(std::uint64_t{0}).put(std::uint64_t{0}).put(std::int32_t{-1});
    return;
  }
  if (thread.host == services_.self) {
    services_.layout->learn(address, mapping->range, mapping->prot);
  } else {
    known_by_[address / kBlock] |= dsm::mask_of(thread.host);
  }
  out.put(layout_version_)
      .put(mapping->range.start)
      .put(mapping->range.end)
      .put(std::int32_t{mapping->prot});
}

std::int64_t Home::fill(const Mapping& mapping) {
  const auto found = backings_.find(mapping.backing);
  if (found == backings_.end()) return 0;
  struct stat status {};
  ::fstat(found->second.get(), &status);
  const std::uint64_t size = static_cast<std::uint64_t>(status.st_size);
  if (mapping.offset >= size) return 0;
  const std::uint64_t bytes = std::min(mapping.range.bytes(), size - mapping.offset);
  services_.layout->learn(mapping.range.start, mapping.range, mapping.prot);
  if (services_.engine->acquire_range(gfn_of(mapping.range.start),
                                      round_up(bytes) >> dsm::kPageShift,
                                      dsm::Right::kExclusive) != dsm::Outcome::kGranted)
    return -EIO;
  std::byte* to = services_.view->frame(gfn_of(mapping.range.start));
  for (std::uint64_t done = 0; done < bytes;) {
    const ssize_t got = ::pread(found->second.get(), to + done, bytes - done,
                                static_cast<off_t>(mapping.offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;  // a file that shrank or cannot be read: the rest stays zero
    done += static_cast<std::uint64_t>(got);
  }
  return 0;
}

void Home::write_back(const Mapping& mapping, Range range) {
  const auto found = backings_.find(mapping.backing);
  if (found == backings_.end() || (::fcntl(found->second.get(), F_GETFL) & O_ACCMODE) != O_RDWR)
    return;
  struct stat status {};
  ::fstat(found->second.get(), &status);
  const std::uint64_t size = static_cast<std::uint64_t>(status.st_size);
  const std::uint64_t offset = mapping.offset + (range.start - mapping.range.start);
  if (offset >= size) return;
  const std::uint64_t bytes = std::min(range.bytes(), size - offset);
  if (services_.engine->acquire_range(gfn_of(range.start), round_up(bytes) >> dsm::kPageShift,
                                      dsm::Right::kShared) != dsm::Outcome::kGranted)
    return;
  const std::byte* from = services_.view->frame(gfn_of(range.start));
  for (std::uint64_t done = 0; done < bytes;) {
    const ssize_t put =
        ::pwrite(found->second.get(), from + done, bytes - done, static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) break;
    done += static_cast<std::uint64_t>(put);
  }
}

std::int64_t Home::advise(std::uint64_t address, std::uint64_t bytes, int advice) {
  if (address % dsm::kPageSize != 0) return -EINVAL;
  const std::uint64_t end = address + round_up(bytes);
  if (end < address || !in_window(address) || end > kWindowEnd) return -ENOMEM;
  if (advice != MADV_DONTNEED && advice != MADV_REMOVE) return 0;  // hints
  std::uint64_t next = address;
  bool hole = false;
  for (const Mapping& mapping : space_.overlapping({address, end})) {
    const Range part{std::max(address, mapping.range.start), std::min(end, mapping.range.end)};
    hole = hole || part.start > next;
    next = part.end;
    // Contents of shared mappings are the file's, or the shared object's: they stay.
    if (mapping.shared || mapping.name == kSharedAnonymous) continue;
    if (services_.engine->discard(gfn_of(part.start), pages_of(part)) != dsm::Outcome::kGranted)
      return -EIO;
    if (mapping.backing < 0) continue;
    Mapping again = mapping;
    again.range = part;
    again.offset += part.start - mapping.range.start;
    fill(again);
  }
  return hole || next < end ? -ENOMEM : 0;
}

std::int64_t Home::sync_mapping(std::uint64_t address, std::uint64_t bytes) {
  if (address % dsm::kPageSize != 0) return -EINVAL;
  const std::uint64_t end = address + round_up(bytes);
  for (const Mapping& part : space_.writable_shared({address, end})) write_back(part, part.range);
  return 0;
}

// Closes the files no mapping refers to any more.
void Home::collect_backings() {
  if (backings_.size() < 64) return;
  std::set<int> used;
  for (const Mapping& mapping : space_.overlapping({kWindowStart, kWindowEnd}))
    used.insert(mapping.backing);
  std::erase_if(backings_, [&used](const auto& backing) { return !used.contains(backing.first); });
}

}  // namespace xenspan::hypervisor::usermode
