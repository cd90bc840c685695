// touch: writes, reads and runs pages when a program in Dom0 says so, which watches the accesses.
// They speak by the words of the gate's page: 0 the order's number, 1 what to do, 2 the number of
// the last order done, 3 how many pages were not as they should be. Page n is touched by vCPU n
// modulo their number.
#include "sync.h"
#include "touch_orders.h"
#include "workloads.h"

volatile uint64_t gate[PAGE / 8] __attribute__((aligned(PAGE), section(".gate")));

static volatile uint64_t* page_of(uint64_t number) {
  return (volatile uint64_t*)(TOUCH_ADDRESS + number * PAGE);
}

static void write_page(uint64_t number, uint64_t order) {
  page_of(number)[0] = touch_value(number, order);
  page_of(number)[1] = 0xc300000000b8u | (order & 0xffff) << 8;  // mov $order, %eax; ret
}

static bool run_page(uint64_t number, uint64_t order) {
  return ((uint32_t(*)(void))(uint64_t)&page_of(number)[1])() == (order & 0xffff);
}

void touch_work(unsigned me, unsigned argument) {
  (void)argument;
  static volatile uint64_t what, last_write;
  for (uint64_t order = 1;; order++) {
    if (me == 0) {  // no other vCPU looks at the gate, so its page stays where Dom0 writes to it
      WAIT_UNTIL(__atomic_load_n(&gate[0], __ATOMIC_SEQ_CST) >= order);
      what = gate[1];
      if (what == TOUCH_WRITE) last_write = order;
    }
    barrier();
    if (what == TOUCH_END) break;
    uint64_t wrong = 0;
    for (uint64_t number = me; number < options.touch; number += vcpu_count) {
      if (what == TOUCH_WRITE) write_page(number, order);
      if (what == TOUCH_READ) wrong += page_of(number)[0] != touch_value(number, last_write);
      if (what == TOUCH_RUN) wrong += !run_page(number, last_write);
      vcpus[me].work++;
    }
    __atomic_fetch_add(arena(0), wrong, __ATOMIC_SEQ_CST);
    barrier();
    if (me == 0) {
      gate[3] = *arena(0);
      __atomic_store_n(&gate[2], order, __ATOMIC_SEQ_CST);
    }
  }
}

struct verdict touch_judge(unsigned argument) {
  (void)argument;
  return (struct verdict){*arena(0) == 0, *arena(0), 0};
}
