// A set of addresses kept as ranges that never touch each other: free ranges, ranges that may hold
// contents.
//
// A pure data structure; each call is O(log n) in the number of ranges, plus what it returns. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace xenspan::hypervisor::usermode {

struct Range {
  std::uint64_t start = 0, end = 0;  // bytes, page-aligned, end exclusive
  std::uint64_t bytes() const { return end - start; }
  bool empty() const { return start >= end; }
  friend bool operator==(const Range&, const Range&) = default;
};

// The common part; empty() when there is none.
constexpr Range common(const Range& a, const Range& b) {
  return Range{a.start > b.start ? a.start : b.start, a.end < b.end ? a.end : b.end};
}

class RangeSet {
 public:
  // Empty ranges are ignored by all calls.
  void add(Range range);
  // Takes the range out and returns the parts of it that were in, in order of address.
  std::vector<Range> remove(Range range);
  // The parts of the range that are in, in order of address.
  std::vector<Range> within(Range range) const;
  // The smallest member that holds `bytes`; the lowest one among equals.
  std::optional<Range> smallest_with(std::uint64_t bytes) const;
  std::size_t count() const { return ends_.size(); }

 private:
  void insert(Range range);
  void erase(std::map<std::uint64_t, std::uint64_t>::iterator it);

  std::map<std::uint64_t, std::uint64_t> ends_;                // start -> end
  std::set<std::pair<std::uint64_t, std::uint64_t>> by_size_;  // (bytes, start)
};

}  // namespace xenspan::hypervisor::usermode
