// What a fuzz target asserts: DEMAND(condition) ends the process with a line that says which one
// was not true, so that libFuzzer keeps the input. Any thread.
#pragma once

#include <cstdio>
#include <cstdlib>

#define DEMAND(right)                                                            \
  do {                                                                           \
    if (!(right)) {                                                              \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #right); \
      std::abort();                                                              \
    }                                                                            \
  } while (0)
