// The guest's layout: which addresses are mapped, with which protection, from where. Lives at the home.
//
// A pure data structure with Linux's semantics (mmap(2), munmap(2), mprotect(2), mremap(2), brk(2)): it decides and
// records, it touches no page. Every call says what has to be done to pages afterwards. Results are negative errnos or
// addresses, as the system calls'. Threading: not thread-safe; the caller holds the layout lock.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace xenspan::hypervisor::usermode {

struct Range {
  std::uint64_t start = 0, end = 0;  // bytes, page-aligned, end exclusive
  std::uint64_t bytes() const { return end - start; }
  friend bool operator==(const Range&, const Range&) = default;
};

struct Mapping {
  Range range;
  int prot = 0;               // PROT_*
  bool shared = false;        // MAP_SHARED of a file: written back on msync, munmap and exit
  int backing = -1;           // id of the file behind it (see FileBacking), or -1 for anonymous
  std::uint64_t offset = 0;   // of range.start in the file, bytes
  std::string name;           // path, or "[heap]", "[stack]", "[stack:TID]", "" for anonymous
};

// What a change asks the caller to do, in this order.
struct Change {
  std::int64_t result = 0;             // the system call's result: address, 0, or -errno
  std::vector<Mapping> written_back;   // shared file mappings that go away: write these ranges to their files first
  std::vector<Range> forbidden;        // rights were taken away (munmap, mprotect to less): unmap from every guest view
  std::vector<Range> discarded;        // contents are to become zero (munmap, MAP_FIXED over old, brk down)
  struct Move {
    std::uint64_t from, to, bytes;     // mremap moved contents: copy before `discarded` is carried out
  };
  std::vector<Move> moved;
  std::vector<Mapping> filled;         // new file mappings: contents are to be read from the file
};

class AddressSpace {
 public:
  explicit AddressSpace(std::uint64_t memory_limit);  // bytes that may be mapped accessible and private/anonymous

  void set_brk_start(std::uint64_t address);
  std::uint64_t brk_now() const { return brk_; }
  Change mmap(std::uint64_t address, std::uint64_t bytes, int prot, int flags, int backing, std::uint64_t offset,
              const std::string& name);
  Change munmap(std::uint64_t address, std::uint64_t bytes);
  Change mprotect(std::uint64_t address, std::uint64_t bytes, int prot);
  Change mremap(std::uint64_t old_address, std::uint64_t old_bytes, std::uint64_t new_bytes, int flags,
                std::uint64_t new_address);
  Change brk(std::uint64_t address);

  // The mapping that holds `address`, or nullptr.
  const Mapping* find(std::uint64_t address) const;
  // Every mapping that overlaps the range, in order of address.
  std::vector<Mapping> overlapping(Range range) const;
  std::uint64_t accessible_bytes() const { return accessible_; }
  // As /proc/PID/maps.
  std::string maps() const;

 private:
  std::map<std::uint64_t, Mapping> mappings_;  // by start; never overlapping; neighbours that agree are merged
  std::uint64_t limit_;
  std::uint64_t accessible_ = 0;
  std::uint64_t brk_start_ = 0, brk_ = 0;
};

}  // namespace xenspan::hypervisor::usermode
