// Litmus shapes (Alglave, Maranget, Sewell and others: "x86-TSO"): small races whose outcomes tell
// what order memory is seen in. x and y are in different pages. Said is how often the interesting
// outcome was seen; x86 allows it for sb and r, and a single one elsewhere is a failure.
#include "sync.h"
#include "workloads.h"

enum {
  kPairs = 16,
  kX = 0,
  kY = 1,
  kResults = 2
};  // pages; results of vCPU n in page kResults + n
static uint64_t seen;

// clang-format off
static void body(enum shape shape, unsigned me, volatile uint64_t* x, volatile uint64_t* y, volatile uint64_t* r) {
  if (me == 0) switch (shape) {
      case kSb: *x = 1; r[0] = *y; break;
      case kSbFence: *x = 1; full_fence(); r[0] = *y; break;
      case kMp: *x = 1; *y = 1; break;
      case kLb: r[0] = *x; *y = 1; break;
      case kS: *x = 2; *y = 1; break;
      case kR: case kRFence: *x = 1; if (shape == kRFence) full_fence(); *y = 1; break;
      case k22w: *x = 1; *y = 2; break;
      case kCoRr: case kWrc: case kIriw: *x = 1; break;
    }
  if (me == 1) switch (shape) {
      case kSb: *y = 1; r[0] = *x; break;
      case kSbFence: *y = 1; full_fence(); r[0] = *x; break;
      case kMp: r[0] = *y; r[1] = *x; break;
      case kLb: r[0] = *y; *x = 1; break;
      case kS: r[0] = *y; *x = 1; break;
      case kR: *y = 2; r[0] = *x; break;
      case kRFence: *y = 2; full_fence(); r[0] = *x; break;
      case k22w: *y = 1; *x = 2; break;
      case kCoRr: r[0] = *x; r[1] = *x; break;
      case kWrc: r[0] = *x; *y = 1; break;
      case kIriw: *y = 1; break;
    }
  if (me == 2 && shape == kWrc) { r[0] = *y; r[1] = *x; }
  if (me == 2 && shape == kIriw) { r[0] = *x; r[1] = *y; }
  if (me == 3 && shape == kIriw) { r[0] = *y; r[1] = *x; }
}

// r: what vCPU 0 to 3 read; x and y: the values at the end.
static bool interesting(enum shape shape, const uint64_t r[4][2], uint64_t x, uint64_t y) {
  switch (shape) {
    case kSb: case kSbFence: return r[0][0] == 0 && r[1][0] == 0;
    case kMp: case kCoRr: return r[1][0] == 1 && r[1][1] == 0;
    case kLb: return r[0][0] == 1 && r[1][0] == 1;
    case kS: return r[1][0] == 1 && x == 2;
    case kR: case kRFence: return r[1][0] == 0 && y == 2;
    case k22w: return x == 1 && y == 1;
    case kWrc: return r[1][0] == 1 && r[2][0] == 1 && r[2][1] == 0;
    case kIriw: return r[2][0] == 1 && r[2][1] == 0 && r[3][0] == 1 && r[3][1] == 0;
  }
  return true;
}
// clang-format on

void litmus_prepare(unsigned shape) {
  (void)shape;
  seen = 0;
}

static void tally(enum shape shape) {
  for (unsigned pair = 0; pair < kPairs; pair++) {
    uint64_t r[4][2];
    for (unsigned each = 0; each < 4; each++) {
      r[each][0] = arena(kResults + each)[pair * 2];
      r[each][1] = arena(kResults + each)[pair * 2 + 1];
    }
    seen += interesting(shape, r, arena(kX)[pair * 8], arena(kY)[pair * 8]);
    arena(kX)[pair * 8] = arena(kY)[pair * 8] = 0;
  }
}

void litmus_work(unsigned me, unsigned shape) {
  uint64_t random = me * 77 + 1;
  for (uint64_t round = 0; round < options.litmus; round++) {
    meet();
    for (unsigned pair = 0; pair < kPairs; pair++) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      for (unsigned wait = random >> 58; wait > 0; wait--) compiler_fence();
      body(shape, me, &arena(kX)[pair * 8], &arena(kY)[pair * 8], &arena(kResults + me)[pair * 2]);
    }
    vcpus[me].work++;
    barrier();
    if (me == 0) tally(shape);
  }
}

struct verdict litmus_judge(unsigned shape) {
  return (struct verdict){shape == kSb || shape == kR || seen == 0, seen, 0};
}
