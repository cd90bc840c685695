#include "machine.h"

// Otherwise Xen's headers give the calls of Xen 3.0: its sched_op is one that no HVM guest has.
#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__

#include <stddef.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/hvm_vcpu.h>
#include <xen/hvm/params.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/xen.h>

#include "console.h"
#include "sync.h"

struct vcpu vcpus[MAX_VCPUS] OWN_PAGE;
unsigned vcpu_count = 1;

extern char stacks[], start_other[], page_map[], exceptions[];
extern char on_ipi[], on_timer[], on_spurious[];

enum {
  kApicBase = 0x1b,
  kApicEoi = 0x80b,
  kApicSpurious = 0x80f,
  kApicIcr = 0x830,
  kApicTimer = 0x832
};
enum { kApicTimerInitial = 0x838, kApicTimerDivide = 0x83e, kTscDeadline = 0x6e0, kApicId = 0x802 };
enum { kTimerDeadlineMode = 2 << 17, kDivideBy1 = 0xb, kApicTimerHz = 100000000 };

static struct {
  uint16_t low, selector;
  uint8_t stack, type;
  uint16_t middle;
  uint32_t high, zero;
} vectors[256] OWN_PAGE;
struct {
  uint16_t limit;
  uint64_t base;
} __attribute__((packed)) vectors_register = {sizeof vectors - 1, (uint64_t)vectors};

static bool is_amd, has_deadline;
static uint64_t tsc_khz, console_gfn;

static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]) {
  __asm__ volatile("cpuid"
                   : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                   : "a"(leaf), "c"(subleaf));
}

long hypercall(unsigned number, uint64_t first, uint64_t second, uint64_t third) {
  long result = number;
  if (is_amd) {
    __asm__ volatile("vmmcall" : "+a"(result), "+D"(first), "+S"(second), "+d"(third)::"memory");
  } else {
    __asm__ volatile("vmcall" : "+a"(result), "+D"(first), "+S"(second), "+d"(third)::"memory");
  }
  return result;
}

static struct xen_hvm_param parameter OWN_PAGE;

uint64_t hvm_param(uint32_t index) {
  parameter = (struct xen_hvm_param){.domid = DOMID_SELF, .index = index};
  const long failed = hypercall(__HYPERVISOR_hvm_op, HVMOP_get_param, (uint64_t)&parameter, 0);
  return failed == 0 ? parameter.value : 0;
}

void set_hvm_param(uint32_t index, uint64_t value) {
  parameter = (struct xen_hvm_param){.domid = DOMID_SELF, .index = index, .value = value};
  hypercall(__HYPERVISOR_hvm_op, HVMOP_set_param, (uint64_t)&parameter, 0);
}

static void set_vector(unsigned number, const char* code) {
  const uint64_t address = (uint64_t)code;
  vectors[number].low = address;
  vectors[number].middle = address >> 16;
  vectors[number].high = address >> 32;
  vectors[number].selector = 8;
  vectors[number].type = 0x8e;
}

void machine_begin(void) {
  uint32_t out[4];
  cpuid(0, 0, out);
  is_amd = out[2] == 0x444d4163 || out[2] == 0x656e6975;  // "cAMD", "uine" (Hygon)
  cpuid(1, 0, out);
  has_deadline = out[2] >> 24 & 1;
  for (uint32_t base = 0x40000000; base < 0x40010000 && tsc_khz == 0; base += 0x100) {
    cpuid(base, 0, out);
    if (out[1] == 0x566e6558 && out[2] == 0x65584d4d) {  // "XenVMMXenVMM"
      cpuid(base + 3, 0, out);
      tsc_khz = out[2];
    }
  }
  console_gfn = hvm_param(HVM_PARAM_CONSOLE_PFN);
  for (unsigned i = 0; i < 32; i++) set_vector(i, exceptions + 16 * i);
  set_vector(VECTOR_IPI, on_ipi);
  set_vector(VECTOR_TIMER, on_timer);
  set_vector(VECTOR_SPURIOUS, on_spurious);
}

void machine_begin_vcpu(unsigned me) {
  write_msr(kApicBase, read_msr(kApicBase) | 0xc00);
  write_msr(kApicSpurious, 0x100 | VECTOR_SPURIOUS);
  write_msr(kApicTimerDivide, kDivideBy1);
  vcpus[me].apic = (uint32_t)read_msr(kApicId);
  __asm__ volatile("sti");
  __atomic_store_n(&vcpus[me].up, 1, __ATOMIC_SEQ_CST);
}

static struct vcpu_hvm_context context OWN_PAGE;

void start_others(void) {
  while (vcpu_count < MAX_VCPUS &&
         hypercall(__HYPERVISOR_vcpu_op, VCPUOP_is_up, vcpu_count, 0) >= 0)
    vcpu_count++;
  for (unsigned each = 1; each < vcpu_count; each++) {
    context.mode = VCPU_HVM_MODE_64B;
    context.cpu_regs.x86_64 = (struct vcpu_hvm_x86_64){
        .rsp = (uint64_t)stacks + (each + 1) * STACK_BYTES,
        .rdi = each,
        .rip = (uint64_t)start_other,
        .rflags = 2,
        .cr0 = CR0_WANTED,
        .cr3 = (uint64_t)page_map,
        .cr4 = CR4_WANTED,
        .efer = 0x500,
    };
    long failed = hypercall(__HYPERVISOR_vcpu_op, VCPUOP_initialise, each, (uint64_t)&context);
    if (failed == 0) failed = hypercall(__HYPERVISOR_vcpu_op, VCPUOP_up, each, 0);
    if (failed != 0) {
      say("testguest: FAIL vCPU %u does not start: error %d\n", each, (uint64_t)-failed);
      power_off();
    }
    WAIT_UNTIL(__atomic_load_n(&vcpus[each].up, __ATOMIC_SEQ_CST) != 0);
  }
}

uint64_t console_page(void) { return console_gfn; }

uint64_t ticks_per_second(void) { return tsc_khz != 0 ? tsc_khz * 1000 : 1000000000; }

void yield(void) { hypercall(__HYPERVISOR_sched_op, SCHEDOP_yield, 0, 0); }

void send_ipi(unsigned to) {
  full_fence();  // an x2APIC write does not wait for the stores before it
  write_msr(kApicIcr, (uint64_t)vcpus[to].apic << 32 | VECTOR_IPI);
}

bool timer_has_deadline_mode(void) { return has_deadline; }

void set_timer(unsigned me, uint64_t deadline) {
  vcpus[me].deadline = deadline;
  if (has_deadline) {
    write_msr(kApicTimer, kTimerDeadlineMode | VECTOR_TIMER);
    full_fence();
    write_msr(kTscDeadline, deadline);
    return;
  }
  // A little later than asked for, never earlier: the two clocks are not exactly in step.
  const uint64_t now = read_tsc(), ticks = deadline > now ? deadline - now : 1;
  write_msr(kApicTimer, VECTOR_TIMER);
  write_msr(kApicTimerInitial,
            ticks * (kApicTimerHz / 1000) / (ticks_per_second() / 1000) * 9 / 8 + 1000);
}

// The timer cannot come between its setting and the sleep.
void nap(unsigned me) {
  __asm__ volatile("cli" ::: "memory");
  set_timer(me, read_tsc() + ticks_per_second() / 20);
  __asm__ volatile("sti; hlt" ::: "memory");
}

void power_off(void) {
  struct sched_shutdown why = {.reason = SHUTDOWN_poweroff};
  hypercall(__HYPERVISOR_sched_op, SCHEDOP_shutdown, (uint64_t)&why, 0);
  for (;;) __asm__ volatile("hlt");
}
