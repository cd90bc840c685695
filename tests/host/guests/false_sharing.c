/* Neighbours on one page: each thread owns every n-th byte, word and bit field of the same few
   pages and writes only its own. A page sent whole by a host that wrote another part of it must
   lose nothing. */
#include <pthread.h>
#include <stdint.h>

#include "require.h"

enum { kThreads = 8, kBytes = 2 * 4096, kRounds = 200 };

static uint8_t bytes[kBytes];
static uint64_t words[kThreads]; /* all in one line */

static void* work(void* argument) {
  const unsigned me = (unsigned)(long)argument;
  for (unsigned round = 1; round <= kRounds; ++round) {
    for (unsigned at = me; at < kBytes; at += kThreads) {
      REQUIRE(bytes[at] == (uint8_t)(round - 1));
      bytes[at] = (uint8_t)round;
    }
    for (int i = 0; i < 100; ++i) ++*(volatile uint64_t*)&words[me];
  }
  return NULL;
}

int main(void) {
  pthread_t threads[kThreads];
  for (long i = 0; i < kThreads; ++i) {
    REQUIRE(pthread_create(&threads[i], NULL, work, (void*)i) == 0);
  }
  for (int i = 0; i < kThreads; ++i) REQUIRE(pthread_join(threads[i], NULL) == 0);
  for (unsigned at = 0; at < kBytes; ++at) REQUIRE(bytes[at] == (uint8_t)kRounds);
  for (int i = 0; i < kThreads; ++i) REQUIRE(words[i] == 100 * kRounds);
  printf("ok false_sharing %d\n", kRounds);
  return 0;
}
