// matmul [N [PRODUCTS]]: C = A * B on N x N doubles, OpenMP over rows, loops in ikj order so that
// the inner one runs along memory; then A takes C's place and the product is formed again, as in a
// power iteration. Rows are first touched by the thread that works on them.
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "timing.h"

static double* matrix(size_t n) {
  void* memory = NULL;
  if (posix_memalign(&memory, 4096, n * n * sizeof(double)) != 0) {
    fprintf(stderr, "matmul: no memory for a matrix of %zu x %zu\n", n, n);
    exit(1);
  }
  return memory;
}

static void multiply(const double* a, const double* b, double* c, long n) {
#pragma omp parallel for schedule(static)
  for (long i = 0; i < n; i++) {
    double* restrict row = c + i * n;
    for (long j = 0; j < n; j++) row[j] = 0.0;
    for (long k = 0; k < n; k++) {
      const double x = a[i * n + k];
      const double* restrict other = b + k * n;
      for (long j = 0; j < n; j++) row[j] += x * other[j];
    }
  }
}

int main(int argc, char** argv) {
  const long n = argc > 1 ? atol(argv[1]) : 1024;
  const int products = argc > 2 ? atoi(argv[2]) : 10;
  if (n < 1 || n > 16384 || products < 1) {
    fprintf(stderr, "usage: matmul [N [PRODUCTS]]: N from 1 to 16384\n");
    return 2;
  }
  double* a = matrix((size_t)n);
  double* const b = matrix((size_t)n);
  double* c = matrix((size_t)n);
#pragma omp parallel for schedule(static)
  for (long i = 0; i < n; i++) {
    for (long j = 0; j < n; j++) {
      a[i * n + j] = (double)((i * 7 + j * 3) % 101) / 101.0;
      b[i * n + j] = (double)((i * 5 + j * 11) % 97) / 97.0 * 2.0 / (double)n;
      c[i * n + j] = 0.0;
    }
  }

  const double start = seconds_now();
  for (int product = 0; product < products; product++) {
    multiply(a, b, c, n);
    double* const result = c;
    c = a;
    a = result;
  }
  const double seconds = seconds_now() - start;

  double sum = 0;
  for (long i = 0; i < n * n; i++) sum += a[i];
  print_result("matmul", omp_get_max_threads(), seconds, sum);
  free(a);
  free(b);
  free(c);
  return 0;
}
