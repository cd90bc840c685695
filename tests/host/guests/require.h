/* What all test guests share: a check that ends the program with status 1 and says where. Plain C
 * and C++. */
#ifndef XENSPAN_TESTS_HOST_GUESTS_REQUIRE_H_
#define XENSPAN_TESTS_HOST_GUESTS_REQUIRE_H_

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(right)                                                                           \
  do {                                                                                           \
    if (!(right)) {                                                                              \
      fprintf(stderr, "%s:%d: not true: %s (errno %d: %s)\n", __FILE__, __LINE__, #right, errno, \
              strerror(errno));                                                                  \
      exit(1);                                                                                   \
    }                                                                                            \
  } while (0)

#endif
