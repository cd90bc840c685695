// Where the instances of one round lie in memory, and in which order a thread walks them.
//
// A page takes some tens of microseconds to come from another host, an access a nanosecond. So a
// round has many instances on few pages, and each thread walks them in bursts of neighbours: a
// page is fought for all the time, and yet most accesses find it there. Threads walk in step,
// against each other, or each in its own order, from round to round in turn. Plain values, any
// thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xenspan::litmus {

inline constexpr std::size_t kPageBytes = 4096;
inline constexpr std::size_t kLineBytes = 64;
inline constexpr unsigned kRoundInstances = 1024;
// One page: x and y on two cache lines of it. Two pages: x on one, y on the next.
enum class Pages : std::uint8_t { kOne, kTwo };

// An instance's x is at the start of its row; y follows at this distance.
class Layout {
 public:
  Layout(Pages pages, unsigned burst) : pages_(pages), burst_(burst) {}

  // In bytes from the start of the arena, which is kArenaBytes long.
  static constexpr std::size_t kArenaBytes = kRoundInstances * 2 * kLineBytes;
  std::size_t x_of(unsigned instance) const {
    const unsigned group = instance / per_group(), slot = instance % per_group();
    return pages_ == Pages::kOne ? group * kPageBytes + slot * 2 * kLineBytes
                                 : group * 2 * kPageBytes + slot * kLineBytes;
  }
  std::size_t y_of(unsigned instance) const {
    return x_of(instance) + (pages_ == Pages::kOne ? kLineBytes : kPageBytes);
  }
  // From one instance to the next of a burst.
  std::size_t stride() const { return pages_ == Pages::kOne ? 2 * kLineBytes : kLineBytes; }
  // Instances that share their page or pages; a burst never leaves its group.
  unsigned per_group() const {
    return static_cast<unsigned>(kPageBytes / kLineBytes) / (pages_ == Pages::kOne ? 2 : 1);
  }

  unsigned burst() const { return burst_; }
  unsigned bursts() const { return kRoundInstances / burst_; }
  // The burst that a thread of this role does as its `step`th in a round; each step has another
  // one. A step goes to the next page, not to the next burst of the same page.
  unsigned burst_at(unsigned step, unsigned role, unsigned round) const {
    const unsigned order = order_of(step, role, round);
    const unsigned groups = kRoundInstances / per_group();
    return order % groups * (per_group() / burst_) + order / groups;
  }
  // In such a round threads wait for a moment between the two accesses of an instance, so that
  // pages move there too.
  static bool has_gaps(unsigned round) { return round % 4 == 3; }

 private:
  // bursts() is a power of two and the last factor odd: a permutation.
  unsigned order_of(unsigned step, unsigned role, unsigned round) const {
    switch (round % 4) {
      case 1: return role % 2 == 0 ? step : bursts() - 1 - step;
      case 2: return (step * (2 * role + 5) + 37 * role + round) % bursts();
      default: return step;
    }
  }

  Pages pages_;
  unsigned burst_;  // a power of two, at most 32
};

}  // namespace xenspan::litmus
