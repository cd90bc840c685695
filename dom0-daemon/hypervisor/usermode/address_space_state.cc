// A layout that goes to another host, or has come from one.
#include <sys/mman.h>

#include <algorithm>

#include "dom0-daemon/hypervisor/usermode/address_space.h"
#include "dom0-daemon/hypervisor/usermode/window.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr Range kWindow{kWindowStart, kWindowEnd};
constexpr int kRights = PROT_READ | PROT_WRITE | PROT_EXEC;

// In order, apart, of whole pages, in the window.
template <typename List, typename RangeOf>
bool well_formed(const List& list, RangeOf range_of) {
  std::uint64_t end = kWindow.start;
  for (const auto& each : list) {
    const Range range = range_of(each);
    if (range.start < end || range.start >= range.end || range.end > kWindow.end ||
        (range.start | range.end) % dsm::kPageSize != 0)
      return false;
    end = range.end;
  }
  return true;
}

bool sound(const Mapping& mapping) {
  return (mapping.prot & ~kRights) == 0 && mapping.backing >= -1 &&
         mapping.offset % dsm::kPageSize == 0 && mapping.offset <= INT64_MAX &&
         mapping.name.find('\0') == std::string::npos;
}

}  // namespace

AddressSpace::State AddressSpace::state() const {
  State state;
  for (const auto& [start, mapping] : mappings_) state.mappings.push_back(mapping);
  state.contents = contents_.within(kWindow);
  state.file_writes = file_writes_.within(kWindow);
  state.brk_start = brk_start_;
  state.brk = brk_;
  return state;
}

bool AddressSpace::take(const State& state) {
  const auto itself = [](const Range& range) { return range; };
  if (!mappings_.empty() || state.brk < state.brk_start || state.brk > kWindowEnd ||
      !well_formed(state.mappings, [](const Mapping& mapping) { return mapping.range; }) ||
      !well_formed(state.contents, itself) || !well_formed(state.file_writes, itself) ||
      !std::all_of(state.mappings.begin(), state.mappings.end(), sound))
    return false;
  AddressSpace taken(limit_);
  for (const Mapping& mapping : state.mappings) taken.insert(mapping);
  if (taken.accessible_ > limit_) return false;
  for (const Range& range : state.contents) taken.contents_.add(range);
  for (const Range& range : state.file_writes) taken.file_writes_.add(range);
  taken.brk_start_ = state.brk_start;
  taken.brk_ = state.brk;
  *this = std::move(taken);
  return true;
}

}  // namespace xenspan::hypervisor::usermode
