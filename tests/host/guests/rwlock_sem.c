/* Read-write locks, semaphores, recursive, error-checking and try-locks, timed locks, spin locks.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>

#include "require.h"

enum { kReaders = 4, kWriters = 2, kRounds = 2000 };

static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_spinlock_t spin;
static long first, second, spun; /* first == second whenever nobody writes */
static sem_t items, room;
static int slots[4];
static atomic_long taken;

static void* reader(void* unused) {
  (void)unused;
  for (int i = 0; i < kRounds; ++i) {
    REQUIRE(pthread_rwlock_rdlock(&rwlock) == 0);
    REQUIRE(first == second);
    REQUIRE(pthread_rwlock_unlock(&rwlock) == 0);
  }
  return NULL;
}

static void* writer(void* unused) {
  (void)unused;
  for (int i = 0; i < kRounds; ++i) {
    REQUIRE(pthread_rwlock_wrlock(&rwlock) == 0);
    ++first;
    ++second;
    REQUIRE(pthread_rwlock_unlock(&rwlock) == 0);
    pthread_spin_lock(&spin);
    ++spun;
    pthread_spin_unlock(&spin);
  }
  return NULL;
}

static void* producer(void* unused) {
  (void)unused;
  for (int i = 0; i < kRounds; ++i) {
    REQUIRE(sem_wait(&room) == 0);
    slots[i % 4] = i;
    REQUIRE(sem_post(&items) == 0);
  }
  return NULL;
}

static void* consumer(void* unused) {
  (void)unused;
  for (int i = 0; i < kRounds; ++i) {
    REQUIRE(sem_wait(&items) == 0);
    REQUIRE(slots[i % 4] == i);
    atomic_fetch_add(&taken, slots[i % 4]);
    REQUIRE(sem_post(&room) == 0);
  }
  return NULL;
}

static void kinds_of_mutex(void) {
  pthread_mutexattr_t attributes;
  pthread_mutex_t mutex;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&mutex, &attributes);
  REQUIRE(pthread_mutex_lock(&mutex) == 0 && pthread_mutex_lock(&mutex) == 0);
  REQUIRE(pthread_mutex_unlock(&mutex) == 0 && pthread_mutex_unlock(&mutex) == 0);
  pthread_mutex_destroy(&mutex);
  pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
  pthread_mutex_init(&mutex, &attributes);
  REQUIRE(pthread_mutex_lock(&mutex) == 0 && pthread_mutex_lock(&mutex) == EDEADLK);
  REQUIRE(pthread_mutex_trylock(&mutex) == EBUSY);
  REQUIRE(pthread_mutex_unlock(&mutex) == 0 && pthread_mutex_unlock(&mutex) == EPERM);
  pthread_mutex_destroy(&mutex);
  pthread_mutexattr_destroy(&attributes);
}

static void timed_waits(void) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += 20 * 1000 * 1000;
  if (until.tv_nsec >= 1000000000) {
    until.tv_nsec -= 1000000000;
    ++until.tv_sec;
  }
  sem_t never;
  REQUIRE(sem_init(&never, 0, 0) == 0);
  REQUIRE(sem_trywait(&never) == -1 && errno == EAGAIN);
  REQUIRE(sem_timedwait(&never, &until) == -1 && errno == ETIMEDOUT);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  REQUIRE(now.tv_sec > until.tv_sec ||
          (now.tv_sec == until.tv_sec && now.tv_nsec >= until.tv_nsec));
  sem_destroy(&never);
}

int main(void) {
  pthread_t threads[kReaders + kWriters + 2];
  int count = 0;
  REQUIRE(pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE) == 0);
  REQUIRE(sem_init(&items, 0, 0) == 0 && sem_init(&room, 0, 4) == 0);
  for (int i = 0; i < kReaders; ++i) pthread_create(&threads[count++], NULL, reader, NULL);
  for (int i = 0; i < kWriters; ++i) pthread_create(&threads[count++], NULL, writer, NULL);
  pthread_create(&threads[count++], NULL, producer, NULL);
  pthread_create(&threads[count++], NULL, consumer, NULL);
  for (int i = 0; i < count; ++i) REQUIRE(pthread_join(threads[i], NULL) == 0);
  REQUIRE(first == kWriters * kRounds && second == first && spun == first);
  REQUIRE(taken == (long)kRounds * (kRounds - 1) / 2);
  kinds_of_mutex();
  timed_waits();
  printf("ok rwlock_sem %ld %ld\n", first, (long)taken);
  return 0;
}
