// The guest's layout: which addresses are mapped, with which protection, from where. Lives at the
// home.
//
// A pure data structure with Linux's semantics (mmap(2), munmap(2), mprotect(2), mremap(2),
// brk(2)): it decides and records, it touches no page. Every call says what has to be done to pages
// afterwards. Results are negative errnos or addresses, as the system calls'. Threading: not
// thread-safe; the caller holds the layout lock.
//
// Placement without a wish: the smallest free range of the mmap area that fits, the lowest among
// equals. So freed ranges are used again before untouched ones, and mappings made in a row lie in a
// row.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dom0-daemon/hypervisor/usermode/range_set.h"

namespace xenspan::hypervisor::usermode {

// The name of anonymous memory mapped with MAP_SHARED. It differs from private anonymous memory in
// one thing: MADV_DONTNEED must keep its contents.
inline constexpr const char* kSharedAnonymous = "/dev/zero (deleted)";

struct Mapping {
  Range range;
  int prot = 0;              // PROT_*
  bool shared = false;       // MAP_SHARED of a file: written back on msync, munmap and exit
  int backing = -1;          // id of the file behind it (see FileBacking), or -1 for anonymous
  std::uint64_t offset = 0;  // of range.start in the file, bytes
  std::string name;          // path, or "[heap]", "[stack]", "[stack:TID]", "" for anonymous
};

// What a change asks the caller to do, in this order: written_back, forbidden, moved, discarded,
// filled.
struct Change {
  std::int64_t result = 0;  // the system call's result: address, 0, or -errno
  // Shared file mappings that go away: write these ranges to their files first.
  std::vector<Mapping> written_back;
  // Rights were taken away (munmap, mprotect to less): unmap from every guest view.
  std::vector<Range> forbidden;
  // Contents are to become zero (munmap, MAP_FIXED over old, brk down).
  std::vector<Range> discarded;
  // mremap moved contents: copy all bytes, zero pages too, before `discarded` is carried out. Parts
  // that cannot hold anything but zeroes are left out; `discarded` clears what was at their new
  // place.
  struct Move {
    std::uint64_t from, to, bytes;
    friend bool operator==(const Move&, const Move&) = default;
  };
  std::vector<Move> moved;
  // New file mappings: contents are to be read from the file.
  std::vector<Mapping> filled;
};

class AddressSpace {
 public:
  // `memory_limit`: bytes that may be mapped private and writable, or shared anonymous and
  // accessible.
  explicit AddressSpace(std::uint64_t memory_limit);

  void set_brk_start(std::uint64_t address);
  std::uint64_t brk_now() const { return brk_; }
  // `backing` is ignored with MAP_ANONYMOUS. Private, anonymous and named by a path: a program's
  // segment, whose contents the loader writes; `offset` is then recorded too.
  Change mmap(std::uint64_t address, std::uint64_t bytes, int prot, int flags, int backing,
              std::uint64_t offset, const std::string& name);
  Change munmap(std::uint64_t address, std::uint64_t bytes);
  // As in Linux, what lies before a hole is changed although the result is -ENOMEM.
  Change mprotect(std::uint64_t address, std::uint64_t bytes, int prot);
  // An old size of 0 (a second view of a shared mapping) is refused with -EINVAL.
  Change mremap(std::uint64_t old_address, std::uint64_t old_bytes, std::uint64_t new_bytes,
                int flags, std::uint64_t new_address);
  Change brk(std::uint64_t address);

  // The mapping that holds `address`, or nullptr.
  const Mapping* find(std::uint64_t address) const;
  // The latest mapping that held `address` and is gone, among the last few thousand; or nullptr.
  const Mapping* find_freed(std::uint64_t address) const;
  // Every mapping that overlaps the range, in order of address; not cut to it.
  std::vector<Mapping> overlapping(Range range) const;
  // The parts of the range that are shared file mappings and have been writable: what msync and
  // exit write back.
  std::vector<Mapping> writable_shared(Range range) const;
  // All of it but what is gone (find_freed): for a home whose role moves.
  struct State {
    std::vector<Mapping> mappings;  // in order
    std::vector<Range> contents, file_writes;
    std::uint64_t brk_start = 0, brk = 0;
  };
  State state() const;
  // Into an empty one. False: it is no layout, or more than the limit allows; nothing has changed.
  bool take(const State& state);
  std::uint64_t accessible_bytes() const { return accessible_; }
  std::uint64_t mapped_bytes() const { return mapped_; }
  std::size_t count() const { return mappings_.size(); }
  // As /proc/PID/maps.
  std::string maps() const;

 private:
  using Iterator = std::map<std::uint64_t, Mapping>::iterator;
  struct Freed {
    Range part;       // that went away
    Mapping mapping;  // as it was
  };

  bool is_free(Range range) const;
  bool fits_limit(std::uint64_t more, std::uint64_t less) const;
  std::uint64_t charged(Range range) const;
  std::optional<std::uint64_t> place(std::uint64_t hint, std::uint64_t bytes, int flags) const;
  std::optional<std::uint64_t> first_free(std::uint64_t bytes, Range area) const;
  void insert(Mapping mapping);
  void remove(Range range, Change& change, bool write_back);
  void cut(std::uint64_t address);
  void merge(Range range);
  void remember_contents(const Mapping& mapping);
  void remember_freed(Range range);
  void protect(Iterator it, int prot, Change& change);
  std::int64_t move(const Mapping& source, std::uint64_t to, std::uint64_t new_bytes,
                    bool keep_source, Change& change);

  // By start; never overlapping; neighbours that agree are merged.
  std::map<std::uint64_t, Mapping> mappings_;
  RangeSet free_;            // of the mmap area
  RangeSet contents_;        // what may hold other than zeroes
  std::deque<Freed> freed_;  // the last of them, newest last
  RangeSet file_writes_;     // parts of shared file mappings that have been writable
  std::uint64_t limit_;
  std::uint64_t accessible_ = 0;
  std::uint64_t mapped_ = 0;
  std::uint64_t brk_start_ = 0, brk_ = 0;
};

}  // namespace xenspan::hypervisor::usermode
