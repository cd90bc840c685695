#include "dom0-daemon/hypervisor/usermode/range_set.h"

#include <algorithm>
#include <iterator>

namespace xenspan::hypervisor::usermode {

void RangeSet::insert(Range range) {
  ends_.emplace(range.start, range.end);
  by_size_.emplace(range.bytes(), range.start);
}

void RangeSet::erase(std::map<std::uint64_t, std::uint64_t>::iterator it) {
  by_size_.erase({it->second - it->first, it->first});
  ends_.erase(it);
}

void RangeSet::add(Range range) {
  if (range.empty()) return;
  auto it = ends_.upper_bound(range.start);
  if (it != ends_.begin() && std::prev(it)->second >= range.start) --it;
  while (it != ends_.end() && it->first <= range.end) {
    range.start = std::min(range.start, it->first);
    range.end = std::max(range.end, it->second);
    erase(it++);
  }
  insert(range);
}

std::vector<Range> RangeSet::remove(Range range) {
  std::vector<Range> removed = within(range);
  for (const Range& part : removed) {
    const auto it = std::prev(ends_.upper_bound(part.start));
    const Range whole{it->first, it->second};
    erase(it);
    if (whole.start < part.start) insert({whole.start, part.start});
    if (part.end < whole.end) insert({part.end, whole.end});
  }
  return removed;
}

std::vector<Range> RangeSet::within(Range range) const {
  std::vector<Range> parts;
  if (range.empty()) return parts;
  auto it = ends_.upper_bound(range.start);
  if (it != ends_.begin()) --it;
  for (; it != ends_.end() && it->first < range.end; ++it) {
    const Range part = common(range, {it->first, it->second});
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

std::optional<Range> RangeSet::smallest_with(std::uint64_t bytes) const {
  const auto it = by_size_.lower_bound({bytes, 0});
  if (it == by_size_.end()) return std::nullopt;
  return Range{it->second, it->second + it->first};
}

}  // namespace xenspan::hypervisor::usermode
