/* How a vCPU comes from Xen to C: vCPU 0 by the PVH entry point (32-bit, paging off, %ebx is the start info), the others in long
   mode by VCPUOP_initialise. Page tables map the first 4 GiB to themselves; their accessed and dirty bits are set from the start,
   so that no vCPU writes to them and every slice may hold them shared. The same for the descriptors. */
#include "layout.h"

	.section .note.Xen, "a", @note
	.align 4
	.long 4, 4, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long start

	.text
	.code32
	.globl start
start:
	mov	$page_map, %eax
	mov	%eax, %cr3
	mov	%cr4, %eax
	or	$CR4_WANTED, %eax
	mov	%eax, %cr4
	mov	$0xc0000080, %ecx	/* EFER */
	rdmsr
	or	$0x100, %eax		/* long mode */
	wrmsr
	mov	%cr0, %eax
	or	$CR0_WANTED, %eax
	mov	%eax, %cr0
	lgdt	descriptors_32
	ljmp	$8, $first_64

	.code64
first_64:
	mov	$stacks + STACK_BYTES, %rsp
	mov	%ebx, %esi
	xor	%edi, %edi
	jmp	load

/* %rdi: the vCPU's number. %rsp is already its own. */
	.globl start_other
start_other:
	lgdt	descriptors
	pushq	$8
	pushq	$load
	lretq

load:
	mov	$16, %eax
	mov	%eax, %ss
	mov	%eax, %ds
	mov	%eax, %es
	lidt	vectors_register
	xor	%ebp, %ebp
	call	c_main
1:	sti
	hlt
	jmp	1b

/* An interrupt saves what C does not, and calls interrupt(vector). Floating-point registers: handlers use none. */
	.macro	entry name vector
	.globl	on_\name
on_\name:
	push	%rdi
	mov	$\vector, %edi
	jmp	common
	.endm
	entry	ipi VECTOR_IPI
	entry	timer VECTOR_TIMER
	entry	spurious VECTOR_SPURIOUS

common:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rsi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	cld
	call	interrupt
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rax
	pop	%rdi
	iretq

/* An exception is the end: exception(vector, its frame). */
	.globl	exceptions
	.align	16
exceptions:
	.set	number, 0
	.rept	32
	.align	16
	pushq	$number
	jmp	exceptional
	.set	number, number + 1
	.endr
exceptional:
	pop	%rdi
	mov	%rsp, %rsi
	and	$~15, %rsp
	call	exception
1:	hlt
	jmp	1b

	.data
	.align	4096
page_map:
	.quad	pages_1g + PAGE_BITS
	.fill	511, 8, 0
pages_1g:
	.quad	pages_2m + PAGE_BITS, pages_2m + 0x1000 + PAGE_BITS, pages_2m + 0x2000 + PAGE_BITS, pages_2m + 0x3000 + PAGE_BITS
	.globl	window_tables
window_tables:				/* the 512 GiB's fifth GiB: filled in by the workload `tables' */
	.fill	508, 8, 0
pages_2m:
	.set	address, 0
	.rept	2048
	.quad	address + 0x80 + PAGE_BITS
	.set	address, address + 0x200000
	.endr
	.globl	page_map
	.align	16
descriptor_table:
	.quad	0, 0x00af9b000000ffff, 0x00cf93000000ffff
descriptors_32:
descriptors:
	.word	23
	.quad	descriptor_table

	.bss
	.align	STACK_BYTES
	.globl	stacks
stacks:
	.skip	MAX_VCPUS * STACK_BYTES
	.section .note.GNU-stack, "", @progbits
