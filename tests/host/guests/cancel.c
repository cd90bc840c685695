/* Cancellation: in blocking calls, in a condition wait (which takes the mutex again for the
   clean-up), deferred at a test point, asynchronous, refused while disabled; pthread_exit with
   clean-up handlers; detached threads. */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <unistd.h>

#include "require.h"

static atomic_int cleaned;
static sem_t ready;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;

static void clean(void* unused) {
  (void)unused;
  ++cleaned;
}
static void unlock(void* lock) {
  ++cleaned;
  pthread_mutex_unlock(lock);
}

static void* in_read(void* descriptor) {
  char byte;
  pthread_cleanup_push(clean, NULL);
  sem_post(&ready);
  REQUIRE(read(*(int*)descriptor, &byte, 1) == 1);
  pthread_cleanup_pop(0);
  return NULL;
}

static void* in_wait(void* unused) {
  (void)unused;
  pthread_mutex_lock(&mutex);
  pthread_cleanup_push(unlock, &mutex);
  sem_post(&ready);
  for (;;) pthread_cond_wait(&never, &mutex);
  pthread_cleanup_pop(0);
  return NULL;
}

static void* in_sleep(void* unused) {
  (void)unused;
  pthread_cleanup_push(clean, NULL);
  sem_post(&ready);
  sleep(1000);
  pthread_cleanup_pop(0);
  return NULL;
}

static void* at_test_point(void* unused) {
  int old;
  (void)unused;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
  sem_post(&ready);
  usleep(20000);
  ++cleaned; /* must still be reached */
  pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
  for (;;) pthread_testcancel();
  return NULL;
}

static void* asynchronous(void* unused) {
  int old;
  (void)unused;
  pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
  pthread_cleanup_push(clean, NULL);
  sem_post(&ready);
  for (volatile unsigned long i = 0;; ++i) {
  }
  pthread_cleanup_pop(0);
  return NULL;
}

static void* leaves(void* unused) {
  (void)unused;
  pthread_cleanup_push(clean, NULL);
  pthread_cleanup_push(clean, NULL);
  pthread_exit((void*)77);
  pthread_cleanup_pop(0);
  pthread_cleanup_pop(0);
  return NULL;
}

static void* detached(void* unused) {
  (void)unused;
  sem_post(&ready);
  return NULL;
}

static void cancel_one(void* (*work)(void*), void* argument, int expected) {
  pthread_t thread;
  void* result;
  cleaned = 0;
  REQUIRE(pthread_create(&thread, NULL, work, argument) == 0);
  REQUIRE(sem_wait(&ready) == 0);
  REQUIRE(pthread_cancel(thread) == 0);
  REQUIRE(pthread_join(thread, &result) == 0);
  REQUIRE(result == PTHREAD_CANCELED);
  REQUIRE(cleaned == expected);
}

int main(void) {
  int ends[2];
  pthread_t thread;
  void* result;
  REQUIRE(pipe(ends) == 0 && sem_init(&ready, 0, 0) == 0);
  for (int round = 0; round < 10; ++round) {
    cancel_one(in_read, &ends[0], 1);
    cancel_one(in_wait, NULL, 1);
    REQUIRE(pthread_mutex_trylock(&mutex) == 0 && pthread_mutex_unlock(&mutex) == 0);
    cancel_one(in_sleep, NULL, 1);
    cancel_one(at_test_point, NULL, 1);
    cancel_one(asynchronous, NULL, 1);
  }
  cleaned = 0;
  REQUIRE(pthread_create(&thread, NULL, leaves, NULL) == 0);
  REQUIRE(pthread_join(thread, &result) == 0 && result == (void*)77 && cleaned == 2);
  for (int i = 0; i < 20; ++i) {
    REQUIRE(pthread_create(&thread, NULL, detached, NULL) == 0 && pthread_detach(thread) == 0);
    REQUIRE(sem_wait(&ready) == 0);
  }
  printf("ok cancel\n");
  return 0;
}
