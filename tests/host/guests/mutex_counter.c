/* Eight threads, 100000 increments each, under one mutex. The counter is no atomic: one lost right
   to the page, or one lost wake-up, and the sum is wrong or the program hangs. */
#include <pthread.h>

#include "require.h"

enum { kThreads = 8, kIncrements = 100000 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long counter;

static void* work(void* unused) {
  (void)unused;
  for (int i = 0; i < kIncrements; ++i) {
    pthread_mutex_lock(&mutex);
    ++counter;
    pthread_mutex_unlock(&mutex);
  }
  return NULL;
}

int main(void) {
  pthread_t threads[kThreads];
  for (int i = 0; i < kThreads; ++i) REQUIRE(pthread_create(&threads[i], NULL, work, NULL) == 0);
  for (int i = 0; i < kThreads; ++i) REQUIRE(pthread_join(threads[i], NULL) == 0);
  REQUIRE(counter == (long)kThreads * kIncrements);
  printf("ok mutex_counter %ld\n", counter);
  return 0;
}
