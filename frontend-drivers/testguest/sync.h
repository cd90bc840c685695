// Waiting, a lock and a barrier for vCPUs that may share one CPU or sit on different hosts: who
// waits says PAUSE, and now and then lets another vCPU run.
#ifndef XENSPAN_TESTGUEST_SYNC_H
#define XENSPAN_TESTGUEST_SYNC_H
#include "machine.h"

// 32 suits vCPUs that share one CPU; where each has its own, thousands let them meet closely enough
// to race.
extern uint64_t spins_before_yield;

#define WAIT_UNTIL(condition)                        \
  for (unsigned spins_ = 0; !(condition);) {         \
    pause();                                         \
    if (++spins_ % spins_before_yield == 0) yield(); \
  }

// A ticket lock: first come, first served. All zero is unlocked.
struct lock {
  volatile uint32_t next, serving;
};
void acquire(struct lock* lock);
void release(struct lock* lock);

// Returns when every vCPU has come; what each wrote before is seen by all. One barrier for all:
// vCPUs call it equally often.
void barrier(void);

// A barrier that vCPUs with a CPU each leave at nearly the same moment, so that what follows races.
// Who has come waits a little without PAUSE, which may be a way out to the hypervisor and a long
// way back.
void meet(void);

#endif
