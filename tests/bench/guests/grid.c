// grid [SIDE [ITERATIONS]]: Laplace's equation by red-black Gauss-Seidel on SIDE x SIDE doubles
// (border included), OpenMP over rows. In each half sweep a thread reads the rows of its
// neighbours, as SPLASH's ocean does.
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "timing.h"

static void half_sweep(double* grid, long side, int colour) {
#pragma omp for schedule(static)
  for (long i = 1; i < side - 1; i++) {
    double* const row = grid + i * side;
    for (long j = 1 + ((i + 1 + colour) & 1); j < side - 1; j += 2) {
      const double around = row[j - side] + row[j + side] + row[j - 1] + row[j + 1];
      row[j] += 1.5 * (0.25 * around - row[j]);
    }
  }
}

int main(int argc, char** argv) {
  const long side = argc > 1 ? atol(argv[1]) : 2050;
  const int iterations = argc > 2 ? atoi(argv[2]) : 600;
  if (side < 3 || side > 32768 || iterations < 1) {
    fprintf(stderr, "usage: grid [SIDE [ITERATIONS]]: SIDE from 3 to 32768\n");
    return 2;
  }
  void* memory = NULL;
  if (posix_memalign(&memory, 4096, (size_t)side * (size_t)side * sizeof(double)) != 0) {
    fprintf(stderr, "grid: no memory for %ld x %ld\n", side, side);
    return 1;
  }
  double* const grid = memory;
  // The same split as in the sweeps, so that each row is first touched where it will be used.
#pragma omp parallel for schedule(static)
  for (long i = 1; i < side - 1; i++) {
    for (long j = 0; j < side; j++) grid[i * side + j] = 0.0;
  }
  for (long j = 0; j < side; j++) {
    grid[j] = 100.0;
    grid[(side - 1) * side + j] = (double)j / (double)side;
  }

  const double start = seconds_now();
#pragma omp parallel
  for (int iteration = 0; iteration < iterations; iteration++) {
    half_sweep(grid, side, 0);
    half_sweep(grid, side, 1);
  }
  const double seconds = seconds_now() - start;

  double sum = 0;
  for (long i = 0; i < side * side; i++) sum += grid[i];
  print_result("grid", omp_get_max_threads(), seconds, sum);
  free(grid);
  return 0;
}
