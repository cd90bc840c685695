#include "tests/litmus/bodies.h"

#include <x86intrin.h>

#include <array>
#include <utility>

#include "tests/litmus/shape_table.h"
#include "tests/litmus/tally.h"

namespace xenspan::litmus {
namespace {

// One access. The asm statements are volatile and say that they touch memory: the compiler keeps
// them in order and puts no access of its own between.
template <Op kOp, Variant kVariant>
[[gnu::always_inline]] inline std::uint64_t access(std::uint64_t* x, std::uint64_t* y,
                                                   std::uint64_t base) {
  std::uint64_t* const place = kOp.variable == kX ? x : y;
  std::uint64_t value = base + kOp.operand;
  if constexpr (kOp.kind == Op::Kind::kLoad) {
    asm volatile("movq %1, %0" : "=r"(value) : "m"(*place) : "memory");
  } else if constexpr (kOp.kind == Op::Kind::kStore && kVariant == Variant::kLocked) {
    asm volatile("lock xchgq %0, %1" : "+r"(value), "+m"(*place) : : "memory");
  } else if constexpr (kOp.kind == Op::Kind::kStore) {
    asm volatile("movq %1, %0" : "=m"(*place) : "r"(value) : "memory");
  }
  return value;
}

std::uint8_t decode(std::uint64_t value, std::uint64_t base) {
  return value - base <= 2 ? static_cast<std::uint8_t>(value - base) : kStrange;
}

// A few microseconds, another number each time.
void wait_a_moment(std::uint64_t& random) {
  random = random * 6364136223846793005u + 1442695040888963407u;
  const std::uint64_t begin = __rdtsc(), gap = (random >> 33) % kLongestGap;
  while (__rdtsc() - begin < gap) _mm_pause();
}

template <Op kFirst, Op kSecond, Variant kVariant, bool kGaps>
void body(const Row& row) {
  std::uint64_t* x = row.x;
  std::uint64_t* y = row.y;
  std::uint8_t* seen = row.seen;
  const std::uint64_t base = row.base;
  [[maybe_unused]] std::uint64_t random = base ^ reinterpret_cast<std::uintptr_t>(seen);
  for (unsigned i = 0; i < row.count; ++i, x += row.stride, y += row.stride, seen += 2) {
    const std::uint64_t first = access<kFirst, kVariant>(x, y, base);
    if constexpr (kGaps && kSecond.kind != Op::Kind::kNone) wait_a_moment(random);
    if constexpr (kVariant == Variant::kFenced && kSecond.kind != Op::Kind::kNone)
      asm volatile("mfence" : : : "memory");
    const std::uint64_t second = access<kSecond, kVariant>(x, y, base);
    if constexpr (kFirst.kind == Op::Kind::kLoad) seen[0] = decode(first, base);
    if constexpr (kSecond.kind == Op::Kind::kLoad) seen[1] = decode(second, base);
  }
}

using Variants = std::array<std::array<Body, 2>, 3>;

template <std::size_t kShape, unsigned kThread, Variant kVariant>
constexpr std::array<Body, 2> with_and_without_gaps() {
  constexpr std::array<Op, 2> code = kShapes[kShape].code[kThread];
  return {body<code[0], code[1], kVariant, false>, body<code[0], code[1], kVariant, true>};
}

template <std::size_t kShape, unsigned kThread>
constexpr Variants variants() {
  return {with_and_without_gaps<kShape, kThread, Variant::kPlain>(),
          with_and_without_gaps<kShape, kThread, Variant::kFenced>(),
          with_and_without_gaps<kShape, kThread, Variant::kLocked>()};
}

using ShapeBodies = std::array<Variants, kMaxThreads>;

template <std::size_t... kShape>
constexpr std::array<ShapeBodies, kShapeCount> all(std::index_sequence<kShape...>) {
  return {ShapeBodies{variants<kShape, 0>(), variants<kShape, 1>(), variants<kShape, 2>(),
                      variants<kShape, 3>()}...};
}

constexpr auto kBodies = all(std::make_index_sequence<kShapeCount>());

}  // namespace

Body body_of(std::size_t shape, unsigned thread, Variant variant, bool gaps) {
  return kBodies[shape][thread][static_cast<std::size_t>(variant)][gaps ? 1 : 0];
}

}  // namespace xenspan::litmus
