/* A thousand phases of a pthread barrier. In each one every thread writes its slot and, behind the
   barrier, must see every other thread's slot of the same phase. Exactly one thread a phase is told
   to be the last. */
#include <pthread.h>
#include <stdatomic.h>

#include "require.h"

enum { kThreads = 4, kPhases = 1000 };

static pthread_barrier_t barrier;
static long slots[2][kThreads];
static atomic_long last_ones;

static void* work(void* number) {
  const long me = (long)number;
  for (long phase = 1; phase <= kPhases; ++phase) {
    /* Two sets of slots in turn: nobody is more than one phase ahead. */
    slots[phase % 2][me] = phase;
    const int result = pthread_barrier_wait(&barrier);
    REQUIRE(result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD);
    if (result == PTHREAD_BARRIER_SERIAL_THREAD) atomic_fetch_add(&last_ones, 1);
    for (int other = 0; other < kThreads; ++other) REQUIRE(slots[phase % 2][other] == phase);
  }
  return NULL;
}

int main(void) {
  pthread_t threads[kThreads];
  REQUIRE(pthread_barrier_init(&barrier, NULL, kThreads) == 0);
  for (long i = 0; i < kThreads; ++i) {
    REQUIRE(pthread_create(&threads[i], NULL, work, (void*)i) == 0);
  }
  for (int i = 0; i < kThreads; ++i) REQUIRE(pthread_join(threads[i], NULL) == 0);
  REQUIRE(last_ones == kPhases);
  REQUIRE(pthread_barrier_destroy(&barrier) == 0);
  printf("ok barrier_phases %d\n", kPhases);
  return 0;
}
