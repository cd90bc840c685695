#include "dom0-daemon/hypervisor/usermode/address_space.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "dom0-daemon/hypervisor/usermode/window.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint64_t kPageMask = dsm::kPageSize - 1;
constexpr std::uint64_t kUserEnd = std::uint64_t{1} << 47;  // end of user addresses on x86-64
constexpr std::uint64_t kStackGap = 1 << 20;                // Linux's stack_guard_gap: 256 pages
constexpr std::size_t kFreedKept = 4096;
constexpr Range kWindow{kWindowStart, kWindowEnd};
constexpr Range kMmapArea{kMmapBase, kStackTop - kStackBytes - kStackGap};
// Where mappings go when the mmap area is full: above the heap of a PIE program, below the
// interpreter.
constexpr Range kSecondArea{kPieBase + (std::uint64_t{64} << 30), kInterpreterBase};
// MAP_32BIT: Linux searches the second GiB.
constexpr Range kLowArea{0x40000000, 0x80000000};
constexpr int kRights = PROT_READ | PROT_WRITE | PROT_EXEC;

constexpr std::uint64_t page_down(std::uint64_t address) { return address & ~kPageMask; }
constexpr std::uint64_t page_up(std::uint64_t address) {
  return (address + kPageMask) & ~kPageMask;
}
constexpr bool aligned(std::uint64_t address) { return (address & kPageMask) == 0; }

// What the hardware grants for a protection: every access right brings reading.
int effective(int prot) {
  const int rights = prot & kRights;
  return rights == 0 ? 0 : rights | PROT_READ;
}

bool has_path(const Mapping& mapping) { return !mapping.name.empty() && mapping.name[0] == '/'; }
bool shared_anonymous(const Mapping& mapping) {
  return mapping.backing < 0 && mapping.name == kSharedAnonymous;
}
bool has_offset(const Mapping& mapping) {
  return mapping.backing >= 0 || (has_path(mapping) && !shared_anonymous(mapping));
}
bool shared_file(const Mapping& mapping) { return mapping.shared && mapping.backing >= 0; }

// Bytes that count against the memory limit.
std::uint64_t charge(const Mapping& mapping, int prot) {
  if (shared_anonymous(mapping)) return effective(prot) != 0 ? mapping.range.bytes() : 0;
  return !mapping.shared && (prot & PROT_WRITE) != 0 ? mapping.range.bytes() : 0;
}
std::uint64_t charge(const Mapping& mapping) { return charge(mapping, mapping.prot); }

Mapping part_of(const Mapping& mapping, Range range) {
  Mapping part = mapping;
  part.range = common(mapping.range, range);
  if (has_offset(mapping)) part.offset += part.range.start - mapping.range.start;
  return part;
}

bool mergeable(const Mapping& low, const Mapping& high) {
  return low.range.end == high.range.start && low.prot == high.prot && low.shared == high.shared &&
         low.backing == high.backing &&
         (!has_offset(low) || low.offset + low.range.bytes() == high.offset) &&
         low.name == high.name;
}

// Adds to a list that is in order of address.
void append(std::vector<Range>& list, Range range) {
  if (!list.empty() && list.back().end == range.start) {
    list.back().end = range.end;
  } else {
    list.push_back(range);
  }
}

Change failed(int error) {
  Change change;
  change.result = -error;
  return change;
}

// The checks of mmap(2) that need no look at the layout. 0 or an errno.
int check_mmap(std::uint64_t address, std::uint64_t bytes, int flags, int backing,
               std::uint64_t offset) {
  if (bytes == 0 || !aligned(offset)) return EINVAL;
  const int type = flags & MAP_TYPE;
  if (type != MAP_SHARED && type != MAP_PRIVATE && type != MAP_SHARED_VALIDATE) return EINVAL;
  if (page_up(bytes) == 0 || bytes > kUserEnd) return ENOMEM;
  if ((flags & MAP_ANONYMOUS) == 0) {
    if (backing < 0) return EBADF;
    if (offset + page_up(bytes) < offset) return EOVERFLOW;
    // Nothing here can do a synchronous (persistent memory) mapping.
    if (type == MAP_SHARED_VALIDATE && (flags & MAP_SYNC) != 0) return EOPNOTSUPP;
  } else if (type == MAP_SHARED_VALIDATE) {
    return EINVAL;
  }
  // No huge pages are set aside; programs then fall back to small ones, as on any machine without
  // them.
  if ((flags & MAP_HUGETLB) != 0) return ENOMEM;
  if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0) {
    if (!aligned(address)) return EINVAL;
    if (address < kWindowStart) return EPERM;  // vm.mmap_min_addr
    if (address > kWindowEnd || page_up(bytes) > kWindowEnd - address) return ENOMEM;
  }
  return 0;
}

}  // namespace

AddressSpace::AddressSpace(std::uint64_t memory_limit) : limit_(memory_limit) {
  free_.add(kMmapArea);
}

void AddressSpace::set_brk_start(std::uint64_t address) { brk_start_ = brk_ = address; }

const Mapping* AddressSpace::find(std::uint64_t address) const {
  auto it = mappings_.upper_bound(address);
  if (it == mappings_.begin()) return nullptr;
  --it;
  return address < it->second.range.end ? &it->second : nullptr;
}

std::vector<Mapping> AddressSpace::overlapping(Range range) const {
  std::vector<Mapping> list;
  if (range.empty()) return list;
  auto it = mappings_.upper_bound(range.start);
  if (it != mappings_.begin() && std::prev(it)->second.range.end > range.start) --it;
  for (; it != mappings_.end() && it->first < range.end; ++it) list.push_back(it->second);
  return list;
}

std::vector<Mapping> AddressSpace::writable_shared(Range range) const {
  std::vector<Mapping> list;
  for (const Range& part : file_writes_.within(range)) {
    for (const Mapping& mapping : overlapping(part)) list.push_back(part_of(mapping, part));
  }
  return list;
}

bool AddressSpace::is_free(Range range) const {
  const auto it = mappings_.lower_bound(range.end);
  return it == mappings_.begin() || std::prev(it)->second.range.end <= range.start;
}

std::uint64_t AddressSpace::charged(Range range) const {
  std::uint64_t bytes = 0;
  auto it = mappings_.upper_bound(range.start);
  if (it != mappings_.begin()) --it;
  for (; it != mappings_.end() && it->first < range.end; ++it) {
    const Range part = common(it->second.range, range);
    if (!part.empty() && charge(it->second) != 0) bytes += part.bytes();
  }
  return bytes;
}

bool AddressSpace::fits_limit(std::uint64_t more, std::uint64_t less) const {
  return more <= less || (accessible_ - less <= limit_ && more <= limit_ - (accessible_ - less));
}

std::optional<std::uint64_t> AddressSpace::first_free(std::uint64_t bytes, Range area) const {
  std::uint64_t start = area.start;
  auto it = mappings_.upper_bound(start);
  if (it != mappings_.begin()) --it;
  for (; it != mappings_.end() && it->first < area.end; ++it) {
    if (it->second.range.end <= start) continue;
    if (it->first > start && it->first - start >= bytes) break;
    start = it->second.range.end;
  }
  if (start > area.end || area.end - start < bytes) return std::nullopt;
  return start;
}

std::optional<std::uint64_t> AddressSpace::place(std::uint64_t hint, std::uint64_t bytes,
                                                 int flags) const {
  if (hint != 0) {
    hint = std::max(page_down(hint), kWindowStart);
    if (hint < kWindowEnd && bytes <= kWindowEnd - hint && is_free({hint, hint + bytes}) &&
        ((flags & MAP_32BIT) == 0 || hint + bytes <= kLowArea.end)) {
      return hint;
    }
  }
  if ((flags & MAP_32BIT) != 0) return first_free(bytes, kLowArea);
  if (const auto range = free_.smallest_with(bytes)) return range->start;
  return first_free(bytes, kSecondArea);
}

void AddressSpace::remember_contents(const Mapping& mapping) {
  if ((mapping.prot & PROT_WRITE) != 0 || mapping.backing >= 0 || has_path(mapping)) {
    contents_.add(mapping.range);
  }
  if (shared_file(mapping) && (mapping.prot & PROT_WRITE) != 0) file_writes_.add(mapping.range);
}

void AddressSpace::insert(Mapping mapping) {
  const Range range = mapping.range;
  free_.remove(common(range, kMmapArea));
  accessible_ += charge(mapping);
  mapped_ += range.bytes();
  remember_contents(mapping);
  mappings_.emplace(range.start, std::move(mapping));
  merge(range);
}

void AddressSpace::cut(std::uint64_t address) {
  auto it = mappings_.upper_bound(address);
  if (it == mappings_.begin()) return;
  --it;
  Mapping& low = it->second;
  if (low.range.start == address || low.range.end <= address) return;
  Mapping high = part_of(low, {address, low.range.end});
  low.range.end = address;
  mappings_.emplace_hint(std::next(it), address, std::move(high));
}

// Joins the mappings that touch `range` with each other and with their neighbours, where they
// agree.
void AddressSpace::merge(Range range) {
  auto it = mappings_.lower_bound(range.start);
  if (it != mappings_.begin()) --it;
  while (it != mappings_.end()) {
    const auto next = std::next(it);
    if (next == mappings_.end() || next->first > range.end) break;
    if (mergeable(it->second, next->second)) {
      it->second.range.end = next->second.range.end;
      mappings_.erase(next);
    } else {
      it = next;
    }
  }
}

void AddressSpace::remove(Range range, Change& change, bool write_back) {
  range = common(range, kWindow);
  if (range.empty()) return;
  remember_freed(range);
  cut(range.start);
  cut(range.end);
  for (auto it = mappings_.lower_bound(range.start); it != mappings_.end() && it->first < range.end;
       it = mappings_.erase(it)) {
    const Mapping& mapping = it->second;
    if (shared_file(mapping)) {
      for (const Range& part : file_writes_.remove(mapping.range)) {
        if (write_back) change.written_back.push_back(part_of(mapping, part));
      }
    }
    if (effective(mapping.prot) != 0) append(change.forbidden, mapping.range);
    accessible_ -= charge(mapping);
    mapped_ -= mapping.range.bytes();
    free_.add(common(mapping.range, kMmapArea));
  }
  for (const Range& part : contents_.remove(range)) append(change.discarded, part);
}

void AddressSpace::remember_freed(Range range) {
  for (const Mapping& mapping : overlapping(range)) {
    if (effective(mapping.prot) == 0) continue;  // nothing of it was ever touched
    if (freed_.size() == kFreedKept) freed_.pop_front();
    freed_.push_back({common(mapping.range, range), mapping});
  }
}

const Mapping* AddressSpace::find_freed(std::uint64_t address) const {
  for (auto it = freed_.rbegin(); it != freed_.rend(); ++it)
    if (address - it->part.start < it->part.bytes()) return &it->mapping;
  return nullptr;
}

Change AddressSpace::mmap(std::uint64_t address, std::uint64_t bytes, int prot, int flags,
                          int backing, std::uint64_t offset, const std::string& name) {
  if (const int error = check_mmap(address, bytes, flags, backing, offset)) return failed(error);
  bytes = page_up(bytes);
  const bool anonymous = (flags & MAP_ANONYMOUS) != 0;
  const bool shared = (flags & MAP_TYPE) != MAP_PRIVATE;
  const bool replaces = (flags & MAP_FIXED) != 0 && (flags & MAP_FIXED_NOREPLACE) == 0;
  if ((flags & MAP_FIXED_NOREPLACE) != 0 && !is_free({address, address + bytes})) {
    return failed(EEXIST);
  }
  if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) == 0) {
    const auto found = place(address, bytes, flags);
    if (!found) return failed(ENOMEM);
    address = *found;
  }
  Mapping mapping;
  mapping.range = {address, address + bytes};
  mapping.prot = prot & kRights;
  mapping.shared = shared && !anonymous;
  mapping.backing = anonymous ? -1 : backing;
  mapping.name = anonymous && shared ? kSharedAnonymous : name;
  mapping.offset = has_offset(mapping) ? offset : 0;
  if (!fits_limit(charge(mapping), replaces ? charged(mapping.range) : 0)) return failed(ENOMEM);
  Change change;
  change.result = static_cast<std::int64_t>(address);
  if (replaces) remove(mapping.range, change, true);
  if (mapping.backing >= 0) change.filled.push_back(mapping);
  insert(std::move(mapping));
  return change;
}

Change AddressSpace::munmap(std::uint64_t address, std::uint64_t bytes) {
  if (!aligned(address) || bytes == 0 || address > kUserEnd || bytes > kUserEnd - address) {
    return failed(EINVAL);
  }
  Change change;
  remove({address, address + page_up(bytes)}, change, true);
  return change;
}

void AddressSpace::protect(Iterator it, int prot, Change& change) {
  Mapping& mapping = it->second;
  if ((effective(mapping.prot) & ~effective(prot)) != 0) append(change.forbidden, mapping.range);
  accessible_ -= charge(mapping);
  mapping.prot = prot;
  accessible_ += charge(mapping);
  remember_contents(mapping);
}

Change AddressSpace::mprotect(std::uint64_t address, std::uint64_t bytes, int prot) {
  const int grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP);
  prot &= ~grows;
  if (grows == (PROT_GROWSDOWN | PROT_GROWSUP) || !aligned(address)) return failed(EINVAL);
  if (bytes == 0) return Change{};
  const std::uint64_t end = address + page_up(bytes);
  if (end <= address || page_up(bytes) < bytes) return failed(ENOMEM);
  if ((prot & ~(kRights | 0x8 /* PROT_SEM */)) != 0) return failed(EINVAL);
  prot &= kRights;
  std::uint64_t start = address;
  if (grows != 0) {
    // Only the stack is a mapping that grows.
    const Mapping* mapping = find(address);
    if (mapping == nullptr) return failed(ENOMEM);
    if (grows == PROT_GROWSUP || mapping->name != "[stack]") return failed(EINVAL);
    start = mapping->range.start;
  }
  Change change;
  std::uint64_t at = start;
  while (at < end) {
    const Mapping* mapping = find(at);
    if (mapping == nullptr) {
      change.result = -ENOMEM;
      break;
    }
    const Range part = common(mapping->range, {at, end});
    if (mapping->prot != prot) {
      const Mapping piece = part_of(*mapping, part);
      if (!fits_limit(charge(piece, prot), charge(piece))) {
        change.result = -ENOMEM;
        break;
      }
      cut(part.start);
      cut(part.end);
      protect(mappings_.find(part.start), prot, change);
    }
    at = part.end;
  }
  if (at > start) merge({start, at});
  return change;
}

// Moves `source`, which lies inside one mapping, to the free range at `to`; the new size may be
// larger, not smaller.
std::int64_t AddressSpace::move(const Mapping& source, std::uint64_t to, std::uint64_t new_bytes,
                                bool keep_source, Change& change) {
  const std::uint64_t from = source.range.start;
  const std::vector<Range> contents = contents_.within(source.range);
  const std::vector<Range> writes = file_writes_.within(source.range);
  RangeSet cleared;  // at the new place: what was there and is not overwritten by the move
  for (const Range& part : change.discarded) cleared.add(part);
  change.discarded.clear();
  for (const Range& part : contents) {
    change.moved.push_back({part.start, to + (part.start - from), part.bytes()});
    cleared.remove({to + (part.start - from), to + (part.end - from)});
  }
  remove(source.range, change, false);
  for (const Range& part : change.discarded) cleared.add(part);
  change.discarded = cleared.within(kWindow);

  Mapping target = source;
  target.range = {to, to + new_bytes};
  if (target.backing >= 0 && new_bytes > source.range.bytes()) {
    change.filled.push_back(part_of(target, {to + source.range.bytes(), to + new_bytes}));
  }
  insert(std::move(target));
  for (const Range& part : contents)
    contents_.add({to + (part.start - from), to + (part.end - from)});
  for (const Range& part : writes) {
    file_writes_.add({to + (part.start - from), to + (part.end - from)});
  }
  if (keep_source) {
    if (source.backing >= 0) change.filled.push_back(source);
    insert(source);
  }
  return static_cast<std::int64_t>(to);
}

Change AddressSpace::mremap(std::uint64_t old_address, std::uint64_t old_bytes,
                            std::uint64_t new_bytes, int flags, std::uint64_t new_address) {
  const bool fixed = (flags & MREMAP_FIXED) != 0;
  const bool keep = (flags & MREMAP_DONTUNMAP) != 0;
  const bool may_move = (flags & MREMAP_MAYMOVE) != 0;
  if ((flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0) return failed(EINVAL);
  if ((fixed || keep) && !may_move) return failed(EINVAL);
  if (keep && old_bytes != new_bytes) return failed(EINVAL);
  if (!aligned(old_address) || old_bytes == 0 || new_bytes == 0) return failed(EINVAL);
  if (old_bytes > kUserEnd || old_address > kUserEnd - old_bytes) return failed(EFAULT);
  if (new_bytes > kUserEnd) return failed(fixed ? EINVAL : ENOMEM);
  old_bytes = page_up(old_bytes);
  new_bytes = page_up(new_bytes);
  const Range old{old_address, old_address + old_bytes};
  if (fixed) {
    if (!aligned(new_address) || new_address > kWindowEnd || new_bytes > kWindowEnd - new_address) {
      return failed(EINVAL);
    }
    if (!common(old, {new_address, new_address + new_bytes}).empty()) return failed(EINVAL);
    if (new_address < kWindowStart) return failed(EPERM);
  }
  const Mapping* found = find(old_address);
  if (found == nullptr) return failed(EFAULT);

  Change change;
  const bool moves = fixed || keep;
  if (new_bytes <= old_bytes && !moves) {
    remove({old_address + new_bytes, old.end}, change, true);
    change.result = static_cast<std::int64_t>(old_address);
    return change;
  }
  if (old.end > found->range.end && new_bytes >= old_bytes) return failed(EFAULT);
  const Range kept{old_address, old_address + std::min(old_bytes, new_bytes)};
  if (kept.end > found->range.end) return failed(EFAULT);
  const bool counts = charge(*found) != 0;
  const Range target{new_address, new_address + new_bytes};
  const std::uint64_t more = counts ? new_bytes - (keep ? 0 : kept.bytes()) : 0;
  if (!fits_limit(more, fixed ? charged(target) : 0)) return failed(ENOMEM);

  if (!moves && old.end == found->range.end && new_bytes <= kWindowEnd - old_address &&
      is_free({old.end, old_address + new_bytes})) {
    Mapping extension = *found;
    extension.range = {old.end, old_address + new_bytes};
    if (has_offset(*found)) extension.offset += found->range.bytes();
    if (extension.backing >= 0) change.filled.push_back(extension);
    insert(std::move(extension));
    change.result = static_cast<std::int64_t>(old_address);
    return change;
  }
  if (!may_move) return failed(ENOMEM);

  std::uint64_t to = new_address;
  if (!fixed) {
    const auto place_found = place(keep ? new_address : 0, new_bytes, 0);
    if (!place_found) return failed(ENOMEM);
    to = *place_found;
  }
  const Mapping source = part_of(*found, kept);
  // The order of change.forbidden does not matter; each list stays free of doubles because the
  // ranges are disjoint.
  if (fixed) remove(target, change, true);
  if (kept.end < old.end) remove({kept.end, old.end}, change, true);
  change.result = move(source, to, new_bytes, keep, change);
  return change;
}

Change AddressSpace::brk(std::uint64_t address) {
  Change change;
  change.result = static_cast<std::int64_t>(brk_);
  if (address < brk_start_ || address > kWindowEnd) return change;
  const std::uint64_t old_end = page_up(brk_), new_end = page_up(address);
  if (new_end < old_end) {
    remove({new_end, old_end}, change, true);
  } else if (new_end > old_end) {
    const Range more{old_end, new_end};
    if (!is_free(more) || !fits_limit(more.bytes(), 0)) return change;
    Mapping heap;
    heap.range = more;
    heap.prot = PROT_READ | PROT_WRITE;
    heap.name = "[heap]";
    insert(std::move(heap));
  }
  brk_ = address;
  change.result = static_cast<std::int64_t>(brk_);
  return change;
}

std::string AddressSpace::maps() const {
  // Column where the kernel starts the name on 64-bit machines.
  constexpr std::size_t kNameColumn = 73;
  std::string text;
  text.reserve(mappings_.size() * 96);
  const std::string* path = nullptr;
  struct stat status {};
  for (const auto& [start, mapping] : mappings_) {
    const std::size_t line = text.size();
    if (has_path(mapping) && (path == nullptr || *path != mapping.name)) {
      path = &mapping.name;
      if (::stat(path->c_str(), &status) != 0) status = {};
    }
    const bool known = has_path(mapping);
    fmt::format_to(std::back_inserter(text), "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
                   start, mapping.range.end, (mapping.prot & PROT_READ) != 0 ? 'r' : '-',
                   (mapping.prot & PROT_WRITE) != 0 ? 'w' : '-',
                   (mapping.prot & PROT_EXEC) != 0 ? 'x' : '-',
                   mapping.shared || shared_anonymous(mapping) ? 's' : 'p', mapping.offset,
                   known ? major(status.st_dev) : 0, known ? minor(status.st_dev) : 0,
                   known ? status.st_ino : 0);
    if (!mapping.name.empty()) {
      if (text.size() - line < kNameColumn) text.resize(line + kNameColumn, ' ');
      for (const char c : mapping.name) {
        if (c == '\n') {
          text += "\\012";
        } else {
          text += c;
        }
      }
    }
    text += '\n';
  }
  return text;
}

}  // namespace xenspan::hypervisor::usermode
