/* A thread calls abort(). The program dies of SIGABRT: a shell sees 134. */
#include <pthread.h>

#include "require.h"

static void* crash(void* unused) {
  (void)unused;
  abort();
}

int main(void) {
  pthread_t thread;
  printf("before the crash\n");
  fflush(stdout);
  REQUIRE(pthread_create(&thread, NULL, crash, NULL) == 0);
  pthread_join(thread, NULL);
  printf("not reached\n");
  return 0;
}
