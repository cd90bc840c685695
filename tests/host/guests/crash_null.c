/* A thread writes to address 0. The program dies of SIGSEGV: a shell sees 139. */
#include <pthread.h>

#include "require.h"

__attribute__((noinline)) static void write_to(volatile int* at) { *at = 1; }

static void* crash(void* address) {
  write_to(address);
  return NULL;
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
