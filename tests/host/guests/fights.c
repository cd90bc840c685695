/* Known fights over pages, for `xenspan advise`.

   fights pairs: four threads; started one after the other on four vCPUs they are on vCPU 1, 2, 3
   and 0. Those on 0 and 2 count in one counter, those on 1 and 3 in another, each counter on a page
   of its own. fights false: two threads, each with counters of its own, on the same page. Both run
   for a while and then check that no count is lost. fights pairs long: until standard input ends.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "require.h"

enum { kPage = 4096, kThreads = 4 };

_Alignas(kPage) _Atomic uint64_t even_counter[kPage / 8];
_Alignas(kPage) _Atomic uint64_t odd_counter[kPage / 8];
_Alignas(kPage) volatile uint64_t hits[kPage / 8];

static double run_for = 0.2; /* seconds */
static int until_input_ends;
_Alignas(kPage) static _Atomic int over[kPage / 4];

static double now(void) {
  struct timespec time;
  REQUIRE(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void* count_shared(void* argument) {
  _Atomic uint64_t* counter = (long)argument % 2 == 0 ? odd_counter : even_counter;
  uint64_t* counted = malloc(sizeof *counted);
  *counted = 0;
  for (const double end = now() + run_for; over[0] == 0 && now() < end;)
    for (int i = 0; i < 1000; ++i, ++*counted) atomic_fetch_add(counter, 1);
  return counted;
}

static void* count_own(void* argument) {
  const long me = (long)argument;
  uint64_t* counted = malloc(sizeof *counted);
  *counted = 0;
  for (const double end = now() + run_for; now() < end;)
    for (int i = 0; i < 1000; ++i, ++*counted) ++hits[me];
  return counted;
}

static uint64_t run(void* (*body)(void*), long threads) {
  pthread_t started[kThreads];
  uint64_t all = 0;
  for (long i = 0; i < threads; ++i)
    REQUIRE(pthread_create(&started[i], NULL, body, (void*)i) == 0);
  if (until_input_ends) {
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) continue;
    over[0] = 1;
  }
  for (long i = 0; i < threads; ++i) {
    void* counted = NULL;
    REQUIRE(pthread_join(started[i], &counted) == 0);
    all += *(uint64_t*)counted;
    free(counted);
  }
  return all;
}

int main(int count, char** arguments) {
  const char* mode = count > 1 ? arguments[1] : "";
  if (strcmp(mode, "pairs") == 0 || strcmp(mode, "false") == 0) run_for = 2;
  if (count > 2 && strcmp(arguments[2], "long") == 0) {
    until_input_ends = 1;
    run_for = 3600;
  }
  if (strcmp(mode, "false") != 0)
    REQUIRE(run(count_shared, kThreads) == even_counter[0] + odd_counter[0]);
  if (strcmp(mode, "pairs") != 0) REQUIRE(run(count_own, 2) == hits[0] + hits[1]);
  printf("ok fights\n");
  return 0;
}
