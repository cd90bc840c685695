/* exit_codes HOW [N]: ends with status N (default 0) in one of the ways a program ends:
     return         from main
     exit           exit() in main, with handlers of atexit() run last in, first out
     thread-exit    exit() in another thread while main sleeps
     thread-_exit   _exit() in another thread: no handlers, no flush
     main-leaves    pthread_exit() in main; the last thread's end is the program's, with status 0
     busy           exit() in main while other threads compute, wait for a mutex, sleep and read
     signal         raise(N) */
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "require.h"

static int status;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int ends[2];

static void first_handler(void) { printf("first handler\n"); }
static void second_handler(void) { printf("second handler\n"); }

static void* exits(void* unused) {
  (void)unused;
  exit(status);
}
static void* exits_at_once(void* unused) {
  (void)unused;
  _exit(status);
}
static void* ends_last(void* unused) {
  (void)unused;
  usleep(30000);
  printf("last thread\n");
  return NULL;
}
static void* computes(void* unused) {
  volatile unsigned long i = 0;
  (void)unused;
  while (++i != 0) {
  }
  return NULL;
}
static void* waits(void* unused) {
  (void)unused;
  pthread_mutex_lock(&mutex);
  return NULL;
}
static void* sleeps(void* unused) {
  (void)unused;
  sleep(1000);
  return NULL;
}
static void* reads(void* unused) {
  char byte;
  (void)unused;
  REQUIRE(read(ends[0], &byte, 1) == 1);
  return NULL;
}

static void start(void* (*work)(void*)) {
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, work, NULL) == 0);
}

int main(int argc, char** argv) {
  const char* how = argc > 1 ? argv[1] : "return";
  status = argc > 2 ? atoi(argv[2]) : 0;
  printf("%s %d\n", how, status);
  fflush(stdout);
  if (strcmp(how, "return") == 0) return status;
  if (strcmp(how, "signal") == 0) raise(status);
  atexit(first_handler);
  atexit(second_handler);
  if (strcmp(how, "exit") == 0) exit(status);
  if (strcmp(how, "thread-exit") == 0) start(exits);
  if (strcmp(how, "thread-_exit") == 0) start(exits_at_once);
  if (strcmp(how, "main-leaves") == 0) {
    start(ends_last);
    pthread_exit(NULL);
  }
  if (strcmp(how, "busy") == 0) {
    REQUIRE(pipe(ends) == 0);
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < 2; ++i) start(computes);
    start(waits);
    start(sleeps);
    start(reads);
    usleep(30000);
    exit(status);
  }
  for (;;) pause();
}
