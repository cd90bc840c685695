// nbody [BODIES [STEPS]]: molecular dynamics with all pairs, in the manner of SPLASH's
// water-nsquared: a Lennard-Jones force between every two bodies, OpenMP over bodies, leapfrog
// steps. All positions are read by every thread in each step; each thread writes only its own
// bodies.
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "timing.h"

struct Body {
  double x, y, z, vx, vy, vz;
};

static void* pages(size_t bytes) {
  void* memory = NULL;
  if (posix_memalign(&memory, 4096, bytes) != 0) {
    fprintf(stderr, "nbody: no memory\n");
    exit(1);
  }
  return memory;
}

// A cubic lattice, shaken a little so that there is something to do.
static void place(struct Body* body, long i, long side) {
  const unsigned long shake = (unsigned long)i * 2654435761u;
  body->x = 1.2 * (double)(i % side) + 0.01 * (double)(shake % 7);
  body->y = 1.2 * (double)(i / side % side) + 0.01 * (double)(shake / 7 % 7);
  body->z = 1.2 * (double)(i / side / side) + 0.01 * (double)(shake / 49 % 7);
  body->vx = body->vy = body->vz = 0.0;
}

static void force_on(const struct Body* bodies, long count, long i, double* force) {
  const double x = bodies[i].x, y = bodies[i].y, z = bodies[i].z;
  double fx = 0, fy = 0, fz = 0;
  for (long j = 0; j < count; j++) {
    const double dx = x - bodies[j].x, dy = y - bodies[j].y, dz = z - bodies[j].z;
    const double square = dx * dx + dy * dy + dz * dz + (j == i ? 1.0 : 0.0);
    const double inverse = 1.0 / square;
    const double sixth = inverse * inverse * inverse;
    const double strength = 24.0 * inverse * sixth * (2.0 * sixth - 1.0);
    fx += strength * dx;
    fy += strength * dy;
    fz += strength * dz;
  }
  force[0] = fx;
  force[1] = fy;
  force[2] = fz;
}

int main(int argc, char** argv) {
  const long count = argc > 1 ? atol(argv[1]) : 8192;
  const int steps = argc > 2 ? atoi(argv[2]) : 20;
  if (count < 1 || count > 1000000 || steps < 1) {
    fprintf(stderr, "usage: nbody [BODIES [STEPS]]\n");
    return 2;
  }
  const double dt = 1e-4;
  const long side = (long)ceil(cbrt((double)count));
  struct Body* const bodies = pages((size_t)count * sizeof *bodies);
  double(*const forces)[3] = pages((size_t)count * sizeof *forces);
#pragma omp parallel for schedule(static)
  for (long i = 0; i < count; i++) {
    place(&bodies[i], i, side);
    forces[i][0] = forces[i][1] = forces[i][2] = 0.0;
  }

  const double start = seconds_now();
#pragma omp parallel
  for (int step = 0; step < steps; step++) {
#pragma omp for schedule(static)
    for (long i = 0; i < count; i++) force_on(bodies, count, i, forces[i]);
#pragma omp for schedule(static)
    for (long i = 0; i < count; i++) {
      struct Body* const body = &bodies[i];
      body->vx += dt * forces[i][0];
      body->vy += dt * forces[i][1];
      body->vz += dt * forces[i][2];
      body->x += dt * body->vx;
      body->y += dt * body->vy;
      body->z += dt * body->vz;
    }
  }
  const double seconds = seconds_now() - start;

  double sum = 0;
  for (long i = 0; i < count; i++) sum += fabs(bodies[i].x) + fabs(bodies[i].y) + fabs(bodies[i].z);
  print_result("nbody", omp_get_max_threads(), seconds, sum);
  free(bodies);
  free(forces);
  return 0;
}
