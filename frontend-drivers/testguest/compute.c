// Work that is mostly computing: a recursion whose parts are taken from a queue, a matrix product,
// and a long computation in registers alone.
#include "sync.h"
#include "workloads.h"

enum { kTasks = 64, kDepth = 6 };
static struct {
  struct lock lock;
  uint64_t next, sum;
} queue OWN_PAGE;

static uint64_t fib(uint64_t n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static uint64_t ones_of(uint64_t bits) {
  uint64_t ones = 0;
  for (; bits != 0; bits &= bits - 1) ones++;
  return ones;
}

void fib_prepare(unsigned argument) {
  (void)argument;
  queue.next = queue.sum = 0;
}

// fib(n) is the sum of 64 numbers fib(k): a task's bits say at each of six steps whether n lost one
// or two.
void fib_work(unsigned me, unsigned argument) {
  (void)argument;
  for (;;) {
    acquire(&queue.lock);
    const uint64_t task = queue.next++;
    release(&queue.lock);
    if (task >= kTasks) break;
    const uint64_t part = fib(options.fib - kDepth - ones_of(task));
    acquire(&queue.lock);
    queue.sum += part;
    release(&queue.lock);
    vcpus[me].work++;
  }
  acquire(&queue.lock);
  queue.next = kTasks;
  release(&queue.lock);
}

struct verdict fib_judge(unsigned argument) {
  (void)argument;
  uint64_t low = 0, high = 1;
  for (uint64_t i = 0; i < options.fib; i++) {
    const uint64_t next = low + high;
    low = high;
    high = next;
  }
  return (struct verdict){queue.sum == low, queue.sum, low};
}

// Rows of 512 bytes, dealt out in turn: each page is written by all.
enum { kSide = 64 };
static double left[kSide][kSide] OWN_PAGE, right[kSide][kSide] OWN_PAGE,
    product[kSide][kSide] OWN_PAGE;

void matrix_prepare(unsigned argument) {
  (void)argument;
  for (int i = 0; i < kSide; i++) {
    for (int j = 0; j < kSide; j++) {
      left[i][j] = i * 3 + j;
      right[i][j] = i - j * 2;
      product[i][j] = -1;
    }
  }
}

void matrix_work(unsigned me, unsigned argument) {
  (void)argument;
  for (unsigned i = me; i < kSide; i += vcpu_count) {
    for (unsigned j = 0; j < kSide; j++) {
      double sum = 0;
      for (unsigned k = 0; k < kSide; k++) sum += left[i][k] * right[k][j];
      product[i][j] = sum;
    }
    vcpus[me].work++;
  }
}

// A row of the product sums to the row times the sums of the right matrix's rows; all are whole
// numbers, so exactly.
struct verdict matrix_judge(unsigned argument) {
  (void)argument;
  struct verdict verdict = {true, 0, kSide};
  for (int i = 0; i < kSide; i++) {
    double got = 0, wanted = 0;
    for (int k = 0; k < kSide; k++) {
      double row = 0;
      for (int j = 0; j < kSide; j++) row += right[k][j];
      wanted += left[i][k] * row;
      got += product[i][k];
    }
    verdict.value += got == wanted;
  }
  verdict.ok = verdict.value == kSide;
  return verdict;
}

// Forward by a step that can be undone, then back: the registers hold the seed again unless one was
// lost when the vCPU moved.
bool compute_for(uint64_t seconds, uint64_t seed) {
  const uint64_t factor = 6364136223846793005u, inverse = 13877824140714322085u;
  const uint64_t begin = read_tsc(), ticks = seconds * ticks_per_second();
  uint64_t value = seed, steps = 0;
  double real = 0;
  while (read_tsc() - begin < ticks) {
    for (int i = 0; i < 1000; i++, steps++) {
      value = value * factor + 1;
      real += 1;
    }
  }
  const bool counted = real == (double)steps;
  for (; steps > 0; steps--) {
    value = (value - 1) * inverse;
    real -= 1;
  }
  return counted && value == seed && real == 0;
}
