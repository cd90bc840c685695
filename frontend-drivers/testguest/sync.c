#include "sync.h"

void acquire(struct lock* lock) {
  const uint32_t mine = __atomic_fetch_add(&lock->next, 1, __ATOMIC_SEQ_CST);
  WAIT_UNTIL(__atomic_load_n(&lock->serving, __ATOMIC_ACQUIRE) == mine);
}

void release(struct lock* lock) {
  __atomic_store_n(&lock->serving, lock->serving + 1, __ATOMIC_RELEASE);
}

// Arrivals and rounds are in different pages: who waits does not hold up who comes.
static volatile uint64_t arrived OWN_PAGE, rounds OWN_PAGE;

void barrier(void) {
  const uint64_t round = __atomic_load_n(&rounds, __ATOMIC_SEQ_CST);
  if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == (round + 1) * vcpu_count) {
    __atomic_store_n(&rounds, round + 1, __ATOMIC_SEQ_CST);
  } else {
    WAIT_UNTIL(__atomic_load_n(&rounds, __ATOMIC_SEQ_CST) != round);
  }
}
