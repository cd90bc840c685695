// What the engine does to be fast, and can be told to leave alone: each costs time when it is off,
// and never correctness.
//
// The names are those of `xenspan run --without` and of domain files. Plain values, any thread.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace xenspan::dsm {

enum class Feature : std::uint8_t {
  kPrefetch,    // pages are asked for before they are touched (prefetch.h)
  kBatching,    // messages that leave together travel together (outbox.h)
  kHold,        // a page is kept for a moment by who has just got it (hold_queue.h)
  kMigratory,   // a page that is always written after it is read is asked for once (migratory.h)
  kReadMostly,  // a page that is read again after each loss is fetched again by itself
                // (returning.h)
  kReturning,   // the same with the right to write
  kZero,        // a page of zeros is named, not sent (zero_page.h)
  kParallel,    // holders of read copies are told at the same time, not one by one (one_by_one.h)
  kCount
};

inline constexpr std::array<std::string_view, static_cast<std::size_t>(Feature::kCount)>
    kFeatureNames = {"prefetch",    "batching",  "hold", "migratory",
                     "read-mostly", "returning", "zero", "parallel"};

class FeatureSet {
 public:
  constexpr bool has(Feature feature) const noexcept {
    return (bits_ & 1u << static_cast<unsigned>(feature)) != 0;
  }
  constexpr void add(Feature feature) noexcept { bits_ |= 1u << static_cast<unsigned>(feature); }

 private:
  std::uint32_t bits_ = 0;
};

// The set of these names; an error says which names there are.
inline Result<FeatureSet> features_of(const std::vector<std::string>& names) {
  FeatureSet set;
  for (const std::string& name : names) {
    std::size_t at = 0;
    while (at < kFeatureNames.size() && kFeatureNames[at] != name) ++at;
    if (at == kFeatureNames.size())
      return Error{EINVAL, fmt::format("there is no feature \"{}\" to do without: use {}", name,
                                       fmt::join(kFeatureNames, ", "))};
    set.add(static_cast<Feature>(at));
  }
  return set;
}

}  // namespace xenspan::dsm
