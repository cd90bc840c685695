// Numbers that the assembler and C share.
#ifndef XENSPAN_TESTGUEST_LAYOUT_H
#define XENSPAN_TESTGUEST_LAYOUT_H

#define MAX_VCPUS 16
#define STACK_BYTES \
  16384  // a power of two; each stack is aligned to it: that is how a vCPU knows its number

#define CR0_WANTED 0x80010033  // paging, write-protect, floating point
#define CR4_WANTED 0x620       // PAE, SSE
#define PAGE_BITS 0x63         // present, writable, accessed, dirty

#define VECTOR_IPI 0x40
#define VECTOR_TIMER 0x41
#define VECTOR_SPURIOUS 0xff

// What lies where, beside the image from 1 MiB up.
#define GATE_ADDRESS 0x101000   // as in testguest.ld
#define ARENA_ADDRESS 0x400000  // pages of the workloads: 1 MiB
#define TOUCH_ADDRESS 0x500000  // the pages of `touch', as many as touch= says

#endif
