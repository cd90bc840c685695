// What the guest can run. A workload is prepared and judged by vCPU 0, and worked on by all, with a
// barrier between the three.
#ifndef XENSPAN_TESTGUEST_WORKLOADS_H
#define XENSPAN_TESTGUEST_WORKLOADS_H
#include <stdbool.h>
#include <stdint.h>

#include "machine.h"

struct verdict {
  bool ok;
  uint64_t value;   // what is said when it is right
  uint64_t wanted;  // and beside it when it is not
};

struct workload {
  const char* name;
  unsigned vcpus;  // at least
  void (*prepare)(unsigned argument);
  void (*work)(unsigned me, unsigned argument);
  struct verdict (*judge)(unsigned argument);
  unsigned argument;
  bool by_name_only;  // not part of "all": it needs a program in Dom0
};

// From the command line; read-only once the workloads run.
struct options {
  uint64_t count;       // rounds of the list
  uint64_t hold;        // seconds of computing before each workload
  uint64_t start;       // seconds until the first
  uint64_t gate;        // wait until a program in Dom0 opens the gate
  uint64_t fib;         // which number
  uint64_t increments;  // of the counter, by each vCPU
  uint64_t litmus;      // rounds of a litmus shape, 16 pairs of variables each
  uint64_t ipis;        // by each vCPU to each other
  uint64_t locks;       // rounds of the lock, by each vCPU
  uint64_t changes;     // of code and of page tables; half as many pages as are handed over
  uint64_t turns;       // of the token that carries the time, by each vCPU
  uint64_t touch;       // pages
  uint64_t spread;      // pages, by each vCPU
  uint64_t patience;    // seconds until a wait that may never end is a failure
  uint64_t off;         // power off at the end
  uint64_t until;       // rounds until a program in Dom0 says that it is enough
  uint64_t listen;      // or `xl shutdown` does
};
extern struct options options;

// Pages for the workloads' variables, zero before each workload.
enum { kArenaPages = 64 };
static inline volatile uint64_t* arena(unsigned page) {
  return (volatile uint64_t*)(ARENA_ADDRESS + (uint64_t)page * PAGE);
}

// The page through which a program in Dom0 speaks to the guest. Only vCPU 0 looks at it, so that it
// stays on the home.
extern volatile uint64_t gate[PAGE / 8];

// WAIT_UNTIL for what another has to do by interrupt: false when the patience is over.
#define WAIT_PATIENTLY(condition)                                             \
  ({                                                                          \
    const uint64_t end_ = read_tsc() + options.patience * ticks_per_second(); \
    WAIT_UNTIL((condition) || read_tsc() > end_);                             \
    (bool)(condition);                                                        \
  })

// compute.c
void fib_prepare(unsigned), fib_work(unsigned, unsigned);
struct verdict fib_judge(unsigned);
void matrix_prepare(unsigned), matrix_work(unsigned, unsigned);
struct verdict matrix_judge(unsigned);
// Computes in registers for so many seconds and back again. False: a register has changed on the
// way.
bool compute_for(uint64_t seconds, uint64_t seed);

// memory.c
void counter_work(unsigned, unsigned), lock_work(unsigned, unsigned),
    pages_work(unsigned, unsigned), code_work(unsigned, unsigned), tables_work(unsigned, unsigned);
struct verdict counter_judge(unsigned), lock_judge(unsigned), pages_judge(unsigned),
    code_judge(unsigned), tables_judge(unsigned);
void stray_work(unsigned, unsigned), spread_work(unsigned, unsigned);
struct verdict stray_judge(unsigned), spread_judge(unsigned);

// events.c
void ipi_work(unsigned, unsigned), timer_work(unsigned, unsigned), tsc_work(unsigned, unsigned);
struct verdict ipi_judge(unsigned), timer_judge(unsigned), tsc_judge(unsigned);

// litmus.c
enum shape { kSb, kSbFence, kMp, kLb, kS, kR, kRFence, k22w, kCoRr, kWrc, kIriw };
void litmus_prepare(unsigned), litmus_work(unsigned, unsigned);
struct verdict litmus_judge(unsigned);

// touch.c
void touch_work(unsigned, unsigned);
struct verdict touch_judge(unsigned);

#endif
