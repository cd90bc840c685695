// What the benchmark guests share: seconds on the monotonic clock, and the one line each of them
// prints. The guests are ordinary programs: they know nothing of xenspan and run natively just the
// same.
#pragma once

#include <stdio.h>
#include <time.h>

static inline double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// "NAME threads=2 seconds=1.234567 checksum=..." : read by xenspan-bench and demo.sh.
static inline void print_result(const char* name, int threads, double seconds, double checksum) {
  printf("%s threads=%d seconds=%.6f checksum=%.12e\n", name, threads, seconds, checksum);
}
