// Waiting, a lock and a barrier for vCPUs that may share one CPU or sit on different hosts: who
// waits says PAUSE, and now and then lets another vCPU run.
#ifndef XENSPAN_TESTGUEST_SYNC_H
#define XENSPAN_TESTGUEST_SYNC_H
#include "machine.h"

#define WAIT_UNTIL(condition)                \
  for (unsigned spins_ = 0; !(condition);) { \
    pause();                                 \
    if (++spins_ % 32 == 0) yield();         \
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

#endif
