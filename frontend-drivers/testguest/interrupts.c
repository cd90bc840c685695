// Handlers of interrupts and exceptions. They save no floating-point registers, so they use none.
#pragma GCC target("general-regs-only")

#include "console.h"
#include "machine.h"

extern char stacks[];

static unsigned who(void) {
  uint64_t stack;
  __asm__("mov %%rsp, %0" : "=r"(stack));
  return (unsigned)((stack - (uint64_t)stacks) / STACK_BYTES);
}

void interrupt(unsigned vector) {
  struct vcpu* self = &vcpus[who()];
  if (vector == VECTOR_IPI) {
    self->ipis = self->ipis + 1;
  } else if (vector == VECTOR_TIMER) {
    self->timer_early += read_tsc() < self->deadline;
    self->timers = self->timers + 1;
  } else {
    self->unexpected = self->unexpected + 1;
    return;  // a spurious interrupt wants no acknowledgement
  }
  write_msr(0x80b, 0);
}

// frame: for the vectors 8, 10 to 14, 17 and 21 an error code, and always rip, cs, rflags, rsp, ss.
void exception(unsigned vector, const uint64_t* frame) {
  uint64_t address;
  __asm__("mov %%cr2, %0" : "=r"(address));
  say("testguest: FAIL exception %u on vCPU %u, cr2 %x, frame %x %x %x\n", (uint64_t)vector,
      (uint64_t)who(), address, frame[0], frame[1], frame[2]);
  for (;;) __asm__ volatile("cli; hlt");
}
