#include "sync.h"

uint64_t spins_before_yield = 32;

void acquire(struct lock* lock) {
  const uint32_t mine = __atomic_fetch_add(&lock->next, 1, __ATOMIC_SEQ_CST);
  WAIT_UNTIL(__atomic_load_n(&lock->serving, __ATOMIC_ACQUIRE) == mine);
}

void release(struct lock* lock) {
  __atomic_store_n(&lock->serving, lock->serving + 1, __ATOMIC_RELEASE);
}

// Arrivals and rounds are in different pages: who waits does not hold up who comes.
static volatile uint64_t arrived OWN_PAGE, rounds OWN_PAGE;

static volatile uint64_t met OWN_PAGE;

void meet(void) {
  barrier();
  const uint64_t mine = __atomic_add_fetch(&met, 1, __ATOMIC_SEQ_CST);
  const uint64_t all = (mine + vcpu_count - 1) / vcpu_count * vcpu_count;
  for (uint64_t spins = spins_before_yield * 100; spins > 0 && met < all; spins--) compiler_fence();
}

void barrier(void) {
  const uint64_t round = __atomic_load_n(&rounds, __ATOMIC_SEQ_CST);
  if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == (round + 1) * vcpu_count) {
    __atomic_store_n(&rounds, round + 1, __ATOMIC_SEQ_CST);
  } else {
    WAIT_UNTIL(__atomic_load_n(&rounds, __ATOMIC_SEQ_CST) != round);
  }
}
