// How long some readings of a clock took: whether the shortest can be believed.
//
// A reading during which a guest had the processor is longer by a time slice, and says a moment
// that is wrong by as much. Time slices differ: where the two shortest took equally long, neither
// was interrupted. Pure; one thread.
#pragma once

#include <algorithm>
#include <cstdint>

namespace xenspan::hypervisor::xen {

class ReadingWidths {
 public:
  // Whether it is the shortest so far.
  bool add(std::uint64_t ns) noexcept {
    const bool best = ns < shortest_;
    second_ = best ? shortest_ : std::min(second_, ns);
    shortest_ = std::min(shortest_, ns);
    return best;
  }
  bool agree() const noexcept {
    return second_ != kNone && second_ - shortest_ <= std::max(shortest_ / 16, kNoiseNs);
  }
  std::uint64_t shortest() const noexcept { return shortest_; }

 private:
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};
  static constexpr std::uint64_t kNoiseNs = 5'000;  // as caches and interrupts make it

  std::uint64_t shortest_ = kNone, second_ = kNone;
};

}  // namespace xenspan::hypervisor::xen
