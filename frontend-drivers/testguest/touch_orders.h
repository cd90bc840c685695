// What the workload `touch' of the test guest and the program in Dom0 that watches it have to agree
// on. C and C++.
#ifndef XENSPAN_TESTGUEST_TOUCH_ORDERS_H
#define XENSPAN_TESTGUEST_TOUCH_ORDERS_H
#include <stdint.h>

enum { TOUCH_WRITE = 1, TOUCH_READ = 2, TOUCH_RUN = 3, TOUCH_END = 4 };

// What the order of that number writes into page `number'.
static inline uint64_t touch_value(uint64_t number, uint64_t order) {
  return (number + 1) * 0x9e3779b97f4a7c15u ^ order;
}

#endif
