// Counts what the instances of one shape and variant ended with, and says which of it x86 forbids.
//
// A value that no thread of the instance wrote (an old round's, half a value, a store that was
// lost) is counted apart and is as wrong as a forbidden outcome. Not thread-safe: one thread adds.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "tests/litmus/shapes.h"

namespace xenspan::litmus {

// What a thread read that is not a value of its instance in its round.
inline constexpr std::uint8_t kStrange = 9;

// What one instance ended with. Values are 0, 1, 2 or kStrange.
struct Ending {
  std::array<std::uint8_t, kMaxRegisters> registers{};
  std::array<std::uint8_t, kMaxVariables> last{};  // of all variables, shown or not
};

class Tally {
 public:
  Tally(const Shape& shape, Variant variant) : shape_(&shape), variant_(variant) {}

  void add(const Ending& ending);

  std::uint64_t total() const { return total_; }
  std::uint64_t forbidden() const { return forbidden_; }
  std::uint64_t store_buffering() const { return store_buffering_; }
  // "0,0 12 (store buffer), 0,1 4999; forbidden 0": the outcomes seen with their counts, and what
  // was wrong.
  std::string text() const;

 private:
  // The outcome's digits; a last value that is not part of it but is wrong is named too.
  Outcome outcome_of(const Ending& ending) const;

  const Shape* shape_;
  Variant variant_;
  std::map<Outcome, std::uint64_t> counts_;
  std::uint64_t total_ = 0, forbidden_ = 0, store_buffering_ = 0;
};

}  // namespace xenspan::litmus
