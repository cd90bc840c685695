// The machine under the guest: hypercalls, vCPUs, time, interrupts. Every function may be called by
// any vCPU.
#ifndef XENSPAN_TESTGUEST_MACHINE_H
#define XENSPAN_TESTGUEST_MACHINE_H
#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

#define PAGE 4096
// A variable with no other in its page; zero at first.
#define OWN_PAGE __attribute__((aligned(PAGE), section(".bss.own_page")))

// What each vCPU counts, each in a page of its own. `work' is counted by the workloads and set to 0
// before each.
struct vcpu {
  volatile uint64_t work;
  volatile uint64_t ipis;
  volatile uint64_t timers;
  volatile uint64_t timer_early;  // came before their time
  volatile uint64_t deadline;     // TSC
  volatile uint64_t unexpected;
  volatile uint32_t apic;
  volatile uint32_t up;
} __attribute__((aligned(PAGE)));
extern struct vcpu vcpus[MAX_VCPUS];
extern unsigned vcpu_count;

static inline uint64_t read_tsc(void) {
  uint32_t low, high;
  __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high)::"memory");
  return low | (uint64_t)high << 32;
}
static inline uint64_t read_msr(uint32_t msr) {
  uint32_t low, high;
  __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
  return low | (uint64_t)high << 32;
}
static inline void write_msr(uint32_t msr, uint64_t value) {
  __asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                   : "memory");
}
static inline void pause(void) { __asm__ volatile("pause" ::: "memory"); }
static inline void full_fence(void) { __asm__ volatile("mfence" ::: "memory"); }
static inline void compiler_fence(void) { __asm__ volatile("" ::: "memory"); }

// vCPU 0, once, before all else: finds out which hypervisor's call instruction to use and how fast
// time runs.
void machine_begin(void);
// The vCPU's x2APIC and its vectors; interrupts are on afterwards, and stay on.
void machine_begin_vcpu(unsigned me);
// vCPU 0: starts all the others in c_main. Returns when each has said that it is up.
void start_others(void);

// vCPU 0, which is on the home: Xen reads what such a call points at from the home's pages.
long hypercall(unsigned number, uint64_t first, uint64_t second, uint64_t third);
uint64_t hvm_param(uint32_t index);
void set_hvm_param(uint32_t index, uint64_t value);

uint64_t ticks_per_second(void);
// Where Xen's tools have put the ring of the PV console, as a page's number.
uint64_t console_page(void);
// The vCPU that shares our CPU may run now.
void yield(void);
void send_ipi(unsigned to);
// An interrupt on this vCPU at that TSC value; by the deadline mode where there is one, else by the
// one-shot counter.
void set_timer(unsigned me, uint64_t deadline);
bool timer_has_deadline_mode(void);
// Sleeps for 50 ms, so that a processor shared with others is theirs.
void nap(unsigned me);
void power_off(void);

#endif
