// matmul [N [PRODUCTS [apart | tiled]]]: C = A * B on N x N doubles, OpenMP over rows, loops in ikj
// order so that the inner one runs along memory; then A takes C's place and the product is formed
// again, as in a power iteration. Rows are first touched by the thread that works on them.
//
// `tiled`: the same sums in the same order, in tiles of B that fit into a core's own cache, as a
// library's product is made: little depends on the caches that cores share.
//
// `apart`: two processes of one thread form half of the rows each, with memory of their own: what
// two hosts do that have all of B by now. On one machine they share its caches, and fit worse into
// them than two threads with one B.
#include <omp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "timing.h"

static double* matrix(size_t n) {
  void* memory = NULL;
  if (posix_memalign(&memory, 4096, n * n * sizeof(double)) != 0) {
    fprintf(stderr, "matmul: no memory for a matrix of %zu x %zu\n", n, n);
    exit(1);
  }
  return memory;
}

// Rows first .. end - 1.
static void multiply(const double* a, const double* b, double* c, long n, long first, long end) {
#pragma omp parallel for schedule(static)
  for (long i = first; i < end; i++) {
    double* restrict row = c + i * n;
    for (long j = 0; j < n; j++) row[j] = 0.0;
    for (long k = 0; k < n; k++) {
      const double x = a[i * n + k];
      const double* restrict other = b + k * n;
      for (long j = 0; j < n; j++) row[j] += x * other[j];
    }
  }
}

// The same; a thread has the same rows in each tile.
static void multiply_tiled(const double* a, const double* b, double* c, long n) {
  enum { kHigh = 64, kWide = 256 };  // 128 KiB
#pragma omp parallel
  for (long top = 0; top < n; top += kHigh) {
    const long bottom = top + kHigh < n ? top + kHigh : n;
    for (long left = 0; left < n; left += kWide) {
      const long right = left + kWide < n ? left + kWide : n;
#pragma omp for schedule(static) nowait
      for (long i = 0; i < n; i++) {
        double* restrict row = c + i * n;
        for (long j = left; top == 0 && j < right; j++) row[j] = 0.0;
        long k = top;
        for (; k + 4 <= bottom; k += 4) {
          const double* restrict x = a + i * n + k, * restrict other = b + k * n;
          for (long j = left; j < right; j++) {
            const double two = row[j] + x[0] * other[j] + x[1] * other[n + j];
            row[j] = two + x[2] * other[2 * n + j] + x[3] * other[3 * n + j];
          }
        }
        for (; k < bottom; k++) {
          const double x = a[i * n + k];
          const double* restrict other = b + k * n;
          for (long j = left; j < right; j++) row[j] += x * other[j];
        }
      }
    }
  }
}

static void fill(double* a, double* b, double* c, long n) {
#pragma omp parallel for schedule(static)
  for (long i = 0; i < n; i++) {
    for (long j = 0; j < n; j++) {
      a[i * n + j] = (double)((i * 7 + j * 3) % 101) / 101.0;
      b[i * n + j] = (double)((i * 5 + j * 11) % 97) / 97.0 * 2.0 / (double)n;
      c[i * n + j] = 0.0;
    }
  }
}

// What the processes of `apart` share.
struct Together {
  pthread_barrier_t ready;
  double seconds[2];
  double rows[];  // of the result
};

// How a product is formed: the whole one, or some rows.
struct Way {
  bool tiled;
  long first, end;
  pthread_barrier_t* ready;  // NULL: there is nobody to wait for
};

// The last product, which the caller frees.
static double* form(long n, int products, struct Way way, double* seconds) {
  double* a = matrix((size_t)n);
  double* const b = matrix((size_t)n);
  double* c = matrix((size_t)n);
  fill(a, b, c, n);
  if (way.ready != NULL) pthread_barrier_wait(way.ready);
  const double start = seconds_now();
  for (int product = 0; product < products; product++) {
    if (way.tiled) {
      multiply_tiled(a, b, c, n);
    } else {
      multiply(a, b, c, n, way.first, way.end);
    }
    double* const result = c;
    c = a;
    a = result;
  }
  *seconds = seconds_now() - start;
  free(b);
  free(c);
  return a;
}

static double sum_of(const double* rows, long n) {
  double sum = 0;
  for (long i = 0; i < n * n; i++) sum += rows[i];
  return sum;
}

// 0, or 1 when a process could not do its part.
static int apart(long n, int products) {
  const size_t bytes = sizeof(struct Together) + (size_t)(n * n) * sizeof(double);
  struct Together* const together =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (together == MAP_FAILED) {
    fprintf(stderr, "matmul: no memory to share\n");
    return 1;
  }
  pthread_barrierattr_t across;
  pthread_barrierattr_init(&across);
  pthread_barrierattr_setpshared(&across, PTHREAD_PROCESS_SHARED);
  pthread_barrier_init(&together->ready, &across, 2);
  for (int part = 0; part < 2; part++) {
    if (fork() != 0) continue;
    const long first = part * (n / 2), end = part == 0 ? n / 2 : n;
    omp_set_num_threads(1);
    const double* const result = form(
        n, products, (struct Way){false, first, end, &together->ready}, &together->seconds[part]);
    memcpy(together->rows + first * n, result + first * n,
           (size_t)((end - first) * n) * sizeof(double));
    _exit(0);
  }
  int failed = 0;
  for (int status; wait(&status) > 0;) failed |= status;
  const double *seconds = together->seconds, last = seconds[seconds[0] < seconds[1]];
  if (failed == 0) print_result("matmul", 2, last, sum_of(together->rows, n));
  return failed == 0 ? 0 : 1;
}

int main(int argc, char** argv) {
  const long n = argc > 1 ? atol(argv[1]) : 1024;
  const int products = argc > 2 ? atoi(argv[2]) : 10;
  const char* const how = argc > 3 ? argv[3] : "";
  const bool in_tiles = strcmp(how, "tiled") == 0, in_parts = strcmp(how, "apart") == 0;
  if (n < 1 || n > 16384 || products < 1 || (argc > 3 && !in_tiles && !in_parts)) {
    fprintf(stderr, "usage: matmul [N [PRODUCTS [apart | tiled]]]: N from 1 to 16384\n");
    return 2;
  }
  if (in_parts) return apart(n, products);
  double seconds;
  const struct Way way = {in_tiles, 0, n, NULL};
  double* const result = form(n, products, way, &seconds);
  print_result("matmul", omp_get_max_threads(), seconds, sum_of(result, n));
  free(result);
  return 0;
}
