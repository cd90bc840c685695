// Numbers drawn by lot, the same for the same seed on every machine: splitmix64 (Steele, Lea,
// Flood, OOPSLA 2014). A plain value, one thread's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xenspan::dsm::scale {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // 0 .. bound-1.
  unsigned below(std::size_t bound) { return static_cast<unsigned>((next() >> 32) * bound >> 32); }
  unsigned between(unsigned low, unsigned high) { return low + below(high - low + 1); }
  bool one_in(unsigned n) { return below(n) == 0; }

 private:
  std::uint64_t state_;
};

}  // namespace xenspan::dsm::scale
