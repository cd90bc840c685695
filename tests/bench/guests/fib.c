// fib [THREADS [N]]: every thread computes the Nth Fibonacci number by plain recursion. No memory
// is shared while the threads compute, so this is the best case for a spanning domain.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "timing.h"

enum { kMaxThreads = 1024 };

struct Work {
  pthread_t thread;
  int n;
  unsigned long result;
};

static unsigned long fib(int n) { return n < 2 ? (unsigned long)n : fib(n - 1) + fib(n - 2); }

static void* compute(void* argument) {
  struct Work* work = argument;
  work->result = fib(work->n);
  return NULL;
}

int main(int argc, char** argv) {
  const int threads = argc > 1 ? atoi(argv[1]) : 8;
  const int n = argc > 2 ? atoi(argv[2]) : 43;
  if (threads < 1 || threads > kMaxThreads || n < 0 || n > 60) {
    fprintf(stderr, "usage: fib [THREADS [N]]: at most %d threads, N at most 60\n", kMaxThreads);
    return 2;
  }
  static struct Work work[kMaxThreads];
  const double start = seconds_now();
  for (int i = 0; i < threads; i++) {
    work[i].n = n;
    if (pthread_create(&work[i].thread, NULL, compute, &work[i]) != 0) {
      perror("fib: pthread_create");
      return 1;
    }
  }
  double sum = 0;
  for (int i = 0; i < threads; i++) {
    pthread_join(work[i].thread, NULL);
    sum += (double)work[i].result;
  }
  print_result("fib", threads, seconds_now() - start, sum);
  return 0;
}
