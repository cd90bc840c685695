// The machine code of the litmus shapes: what one thread does in a row of instances.
//
// Made from the table of shapes at compile time, so that the two accesses of an instance are two
// neighbouring instructions with at most mfence between, or a wait where a row asks for one. Plain
// mov, mfence and lock xchg, as the shape's variant says. A body is called by one worker at a time
// with memory of its own for what it read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tests/litmus/shapes.h"

namespace xenspan::litmus {

// A row of instances that follow each other in memory.
struct Row {
  std::uint64_t* x = nullptr;
  std::uint64_t* y = nullptr;
  std::size_t stride = 0;  // in words, from one instance to the next
  unsigned count = 0;
  std::uint64_t base = 0;        // what the value 0 looks like in this round; 1 and 2 follow
  std::uint8_t* seen = nullptr;  // two bytes an instance: what each access loaded, if it is a load
};

// As a Row says; gaps: how many cycles of the time stamp counter a thread waits at most between the
// accesses of an instance, each time another number.
inline constexpr std::uint64_t kLongestGap = 1 << 15;

using Body = void (*)(const Row& row);
// `shape` is an index into shapes().
Body body_of(std::size_t shape, unsigned thread, Variant variant, bool gaps);

}  // namespace xenspan::litmus
