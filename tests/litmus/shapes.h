// The litmus shapes: small programs for two to four threads over the variables x and y, and what
// x86 lets them see.
//
// One table drives everything: the machine code that threads run (bodies.h), the check of what they
// saw (tally.h) and the model that the unit test holds the table against. The model is x86-TSO
// (Sewell, Sarkar, Owens, Zappa Nardelli, Myreen: x86-TSO, CACM 53(7) 2010), which agrees with
// Intel SDM volume 3, section 8.2.2. Constant data and pure functions: any thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace xenspan::litmus {

inline constexpr unsigned kMaxThreads = 4;
inline constexpr unsigned kMaxVariables = 2;
inline constexpr unsigned kMaxRegisters = 4;

// An access of eight bytes. All variables are 0 at first.
struct Op {
  enum class Kind : std::uint8_t { kNone, kStore, kLoad };
  Kind kind = Kind::kNone;
  std::uint8_t variable = 0;  // 0 is x, 1 is y
  std::uint8_t operand = 0;   // the value stored, or the register loaded
};

// kFenced: mfence between a thread's two accesses. kLocked: each store is a locked xchg.
enum class Variant : std::uint8_t { kPlain, kFenced, kLocked };
inline constexpr Variant kVariants[] = {Variant::kPlain, Variant::kFenced, Variant::kLocked};
const char* name_of(Variant variant);

struct Shape {
  const char* name;
  unsigned threads, variables, registers;
  std::array<std::array<Op, 2>, kMaxThreads> code;
  std::array<bool, kMaxVariables> last;  // the last value of this variable is part of the outcome
  // Outcomes, each the registers r0.. and then the last values asked for, one digit each.
  const char* allowed;       // under x86-TSO, in every variant
  const char* store_buffer;  // allowed too in the plain variant: a store may wait in its buffer
  const char* reason;        // why nothing else is
};

std::span<const Shape> shapes();
const Shape* find_shape(const std::string& name);

// The outcome's digits: "01", or "1,0,1,0" for people.
using Outcome = std::string;
std::string for_people(const Outcome& outcome);

// How many digits an outcome of this shape has.
unsigned outcome_size(const Shape& shape);
// "r0 r1 x": what the digits stand for.
std::string outcome_names(const Shape& shape);
bool is_allowed(const Shape& shape, Variant variant, const Outcome& outcome);
// Allowed only because a store may wait in its thread's store buffer.
bool is_store_buffering(const Shape& shape, Variant variant, const Outcome& outcome);
// Every outcome whose values some thread writes; allowed or not.
std::vector<Outcome> conceivable_outcomes(const Shape& shape);
// The value a variable must have at last, or -1 when more than one thread or store writes it.
int only_value(const Shape& shape, unsigned variable);

}  // namespace xenspan::litmus
