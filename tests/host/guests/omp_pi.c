/* OpenMP: pi by integration (reduction), then a dynamic loop, a critical section, tasks and a
 * single. */
#include <math.h>
#include <omp.h>

#include "require.h"

enum { kSteps = 20 * 1000 * 1000, kItems = 20000 };

static int items[kItems];

static long fib(int n) {
  if (n < 2) return n;
  if (n < 15) return fib(n - 1) + fib(n - 2);
  long a = 0, b = 0;
#pragma omp task shared(a)
  a = fib(n - 1);
#pragma omp task shared(b)
  b = fib(n - 2);
#pragma omp taskwait
  return a + b;
}

int main(void) {
  double pi = 0;
#pragma omp parallel for reduction(+ : pi)
  for (int i = 0; i < kSteps; ++i) {
    const double x = (i + 0.5) / kSteps;
    pi += 4.0 / (1.0 + x * x);
  }
  pi /= kSteps;
  REQUIRE(fabs(pi - M_PI) < 1e-10);

  long sum = 0;
#pragma omp parallel for schedule(dynamic, 64)
  for (int i = 0; i < kItems; ++i) items[i] = i;
#pragma omp parallel for schedule(static, 1000)
  for (int i = 0; i < kItems; ++i) {
    if (items[i] % 1000 == 0) {
#pragma omp critical
      sum += items[i];
    }
  }
  REQUIRE(sum == 190000);

  long number = 0;
#pragma omp parallel
#pragma omp single
  number = fib(24);
  REQUIRE(number == 46368);
  printf("ok omp_pi %.9f %ld %ld\n", pi, sum, number);
  return 0;
}
