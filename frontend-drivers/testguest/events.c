// What comes from outside a vCPU's own instructions: interrupts of other vCPUs, timers, and time
// itself.
#include "sync.h"
#include "workloads.h"

enum { kTimers = 20 };
static uint64_t ipis_before, timers_before, unexpected_before;

// ipi: each sends to each other, one at a time: an interrupt that is answered before the next is
// sent is never merged with it.
void ipi_work(unsigned me, unsigned argument) {
  (void)argument;
  if (me == 0) {
    ipis_before = unexpected_before = 0;
    for (unsigned each = 0; each < vcpu_count; each++) {
      ipis_before += vcpus[each].ipis;
      unexpected_before += vcpus[each].unexpected;
    }
  }
  for (unsigned distance = 1; distance < vcpu_count; distance++) {
    const unsigned to = (me + distance) % vcpu_count;  // each has one sender at a time
    barrier();
    const uint64_t before = __atomic_load_n(&vcpus[to].ipis, __ATOMIC_SEQ_CST);
    barrier();
    for (uint64_t sent = 1; sent <= options.ipis; sent++) {
      send_ipi(to);
      if (!WAIT_PATIENTLY(__atomic_load_n(&vcpus[to].ipis, __ATOMIC_SEQ_CST) >= before + sent))
        break;
      vcpus[me].work++;
    }
    barrier();
  }
}

struct verdict ipi_judge(unsigned argument) {
  (void)argument;
  const uint64_t wanted = options.ipis * (vcpu_count - 1) * vcpu_count;
  uint64_t got = 0, sent = 0, unexpected = 0;
  for (unsigned each = 0; each < vcpu_count; each++) {
    got += vcpus[each].ipis;
    sent += vcpus[each].work;
    unexpected += vcpus[each].unexpected;
  }
  got -= ipis_before;
  return (struct verdict){got == wanted && sent == wanted && unexpected == unexpected_before, got,
                          wanted};
}

// timer: interrupts of the vCPU's own APIC, a millisecond ahead each, none lost and none twice. How
// many came in time is said and not judged: Xen's own clock, by which they are sent, is not exactly
// in step with the TSC.
void timer_work(unsigned me, unsigned argument) {
  (void)argument;
  if (me == 0) {
    timers_before = 0;
    for (unsigned each = 0; each < vcpu_count; each++) timers_before += vcpus[each].timers;
  }
  barrier();
  for (uint64_t armed = 1; armed <= kTimers; armed++) {
    const uint64_t before = vcpus[me].timers, early = vcpus[me].timer_early;
    set_timer(me, read_tsc() + ticks_per_second() / 1000);
    if (!WAIT_PATIENTLY(vcpus[me].timers > before)) break;
    vcpus[me].work += vcpus[me].timer_early == early;
  }
}

struct verdict timer_judge(unsigned argument) {
  (void)argument;
  const uint64_t wanted = (uint64_t)kTimers * vcpu_count;
  uint64_t got = 0;
  for (unsigned each = 0; each < vcpu_count; each++) got += vcpus[each].timers;
  got -= timers_before;
  return (struct verdict){got == wanted, got, wanted};
}

// tsc: a token goes round; who gets it must not read an earlier time than who passed it on.
void tsc_work(unsigned me, unsigned argument) {
  (void)argument;
  volatile uint64_t *turn = &arena(0)[0], *stamp = &arena(0)[1];
  for (uint64_t mine = me; mine < options.turns * vcpu_count; mine += vcpu_count) {
    WAIT_UNTIL(__atomic_load_n(turn, __ATOMIC_ACQUIRE) == mine);
    const uint64_t now = read_tsc();
    vcpus[me].work += now >= *stamp;
    *stamp = now;
    __atomic_store_n(turn, mine + 1, __ATOMIC_RELEASE);
  }
}

struct verdict tsc_judge(unsigned argument) {
  (void)argument;
  const uint64_t wanted = options.turns * vcpu_count;
  uint64_t forward = 0;
  for (unsigned each = 0; each < vcpu_count; each++) forward += vcpus[each].work;
  return (struct verdict){forward == wanted, forward, wanted};
}
