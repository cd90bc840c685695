/* pthread_once and thread-specific data with destructors. */
#include <pthread.h>
#include <stdatomic.h>

#include "require.h"

enum { kThreads = 8, kKeys = 20 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t keys[kKeys];
static int calls[kThreads];
static atomic_int initialised, destroyed, twice;

static void destroy(void* value) {
  ++destroyed;
  free(value);
}

/* A destructor that sets the value again is called again. */
static void destroy_twice(void* value) {
  int* calls = value;
  ++twice;
  if (++*calls < 2) pthread_setspecific(keys[0], calls);
}

static void initialise(void) {
  ++initialised;
  REQUIRE(pthread_key_create(&keys[0], destroy_twice) == 0);
  for (int i = 1; i < kKeys; ++i) REQUIRE(pthread_key_create(&keys[i], destroy) == 0);
}

static void* work(void* argument) {
  const long me = (long)argument;
  REQUIRE(pthread_once(&once, initialise) == 0);
  REQUIRE(initialised == 1);
  for (int i = 1; i < kKeys; ++i) {
    REQUIRE(pthread_getspecific(keys[i]) == NULL);
    long* value = malloc(sizeof *value);
    *value = me * 1000 + i;
    REQUIRE(pthread_setspecific(keys[i], value) == 0);
  }
  pthread_setspecific(keys[0], &calls[me]);
  for (int i = 1; i < kKeys; ++i) {
    REQUIRE(*(long*)pthread_getspecific(keys[i]) == me * 1000 + i);
  }
  return (void*)(me + 1);
}

int main(void) {
  pthread_t threads[kThreads];
  long sum = 0;
  for (long i = 0; i < kThreads; ++i) {
    REQUIRE(pthread_create(&threads[i], NULL, work, (void*)i) == 0);
  }
  for (int i = 0; i < kThreads; ++i) {
    void* result;
    REQUIRE(pthread_join(threads[i], &result) == 0);
    sum += (long)result;
  }
  REQUIRE(sum == kThreads * (kThreads + 1) / 2);
  REQUIRE(destroyed == kThreads * (kKeys - 1));
  REQUIRE(twice == 2 * kThreads);
  printf("ok once_spec %d %d\n", (int)destroyed, (int)twice);
  return 0;
}
