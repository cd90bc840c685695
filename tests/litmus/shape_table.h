// The table behind shapes.h, constexpr so that bodies.h can make machine code of it. Each reason
// names the rule of Intel SDM volume 3, section 8.2.2, and its example in 8.2.3, that forbids the
// rest; x86-TSO (CACM 2010) gives the same.
#pragma once

#include "tests/litmus/shapes.h"

namespace xenspan::litmus {

constexpr Op store(std::uint8_t variable, std::uint8_t value) {
  return {Op::Kind::kStore, variable, value};
}
constexpr Op load(std::uint8_t variable, std::uint8_t target) {
  return {Op::Kind::kLoad, variable, target};
}
inline constexpr std::uint8_t kX = 0, kY = 1;

inline constexpr Shape kShapes[] = {
    // Store buffering: the one relaxation of x86.
    {"SB",
     2,
     2,
     2,
     {{{store(kX, 1), load(kY, 0)}, {store(kY, 1), load(kX, 1)}}},
     {false, false},
     "01 10 11",
     "00",
     "a load may pass an older store to another place (8.2.3.4), but not mfence or a locked "
     "instruction (8.2.3.9)"},
    // Message passing.
    {"MP",
     2,
     2,
     2,
     {{{store(kX, 1), store(kY, 1)}, {load(kY, 0), load(kX, 1)}}},
     {false, false},
     "00 01 11",
     "",
     "stores are seen in order, and loads are done in order (8.2.3.2)"},
    // Load buffering.
    {"LB",
     2,
     2,
     2,
     {{{load(kX, 0), store(kY, 1)}, {load(kY, 1), store(kX, 1)}}},
     {false, false},
     "00 01 10",
     "",
     "a store does not pass an older load (8.2.3.3)"},
    // A store after a load, against two stores.
    {"S",
     2,
     2,
     1,
     {{{store(kX, 2), store(kY, 1)}, {load(kY, 0), store(kX, 1)}}},
     {true, false},
     "01 02 11",
     "",
     "a store does not pass an older load, and stores are seen in order (8.2.3.2, 8.2.3.3)"},
    // A load after a store, against two stores.
    {"R",
     2,
     2,
     1,
     {{{store(kX, 1), store(kY, 1)}, {store(kY, 2), load(kX, 0)}}},
     {false, true},
     "01 11 12",
     "02",
     "a load may pass an older store to another place (8.2.3.4), but not mfence or a locked "
     "instruction (8.2.3.9)"},
    // Two threads, two stores each, in opposite order.
    {"2+2W",
     2,
     2,
     0,
     {{{store(kX, 1), store(kY, 2)}, {store(kY, 1), store(kX, 2)}}},
     {true, true},
     "12 21 22",
     "",
     "stores are seen in order, and all processors see one order (8.2.3.2, 8.2.3.7)"},
    // Independent reads of independent writes.
    {"IRIW",
     4,
     2,
     4,
     {{{store(kX, 1), Op{}},
       {store(kY, 1), Op{}},
       {load(kX, 0), load(kY, 1)},
       {load(kY, 2), load(kX, 3)}}},
     {false, false},
     "0000 0001 0010 0011 0100 0101 0110 0111 1000 1001 1011 1100 1101 1110 1111",
     "",
     "two stores are seen in one order by all other processors (8.2.3.7)"},
    // Coherence of two reads.
    {"CoRR",
     2,
     1,
     2,
     {{{store(kX, 1), Op{}}, {load(kX, 0), load(kX, 1)}}},
     {false, false},
     "00 01 11",
     "",
     "loads are done in order, and a place has one order of values (8.2.3.2)"},
    // Coherence of two writes, watched by two reads.
    {"CoWW",
     2,
     1,
     2,
     {{{store(kX, 1), store(kX, 2)}, {load(kX, 0), load(kX, 1)}}},
     {true, false},
     "002 012 022 112 122 222",
     "",
     "stores of one processor to a place stay in order (8.2.3.2)"},
};
inline constexpr std::size_t kShapeCount = std::size(kShapes);

}  // namespace xenspan::litmus
