/* A PVH guest of one vCPU whose state can be checked from outside at any moment. It computes in registers, in SSE and in x87, is
   interrupted by its local APIC's timer and, when asked, by itself, and writes what it has to the page at 2 MiB after each round;
   tests/lab/xen_probe/beat_page.h says what is where, and computes the same. A vCPU that lost a register, the FPU, the timer or the
   TSC on its way to another domain shows it there. */
#define STATUS 0x200000
#define ROUND (STATUS + 0)		/* written last */
#define BEGUN (STATUS + 8)		/* the round, written first */
#define VALUE (STATUS + 16)
#define SSE (STATUS + 24)
#define X87 (STATUS + 32)
#define TICKS (STATUS + 40)
#define IPIS (STATUS + 48)		/* received */
#define SENT (STATUS + 56)
#define TSC (STATUS + 64)
#define TSC_BACK (STATUS + 72)		/* how often it went back */
#define WRONG (STATUS + 80)		/* registers that changed */
#define SEND (STATUS + 88)		/* by the test: so many interrupts are to be sent */
#define TIMER_VECTOR 0x41
#define IPI_VECTOR 0x40
#define MULTIPLIER 6364136223846793005

	.section .note.Xen, "a", @note
	.align 4
	.long 4, 4, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long start

	.text
	.code32
	.globl start
start:	mov	$stack_end, %esp
	mov	$line, %esi
1:	lodsb
	test	%al, %al
	jz	2f
	out	%al, $0xe9
	jmp	1b
2:	mov	$pml4, %eax
	mov	%eax, %cr3
	mov	%cr4, %eax
	or	$0x620, %eax		/* PAE, FXSR, SSE exceptions */
	mov	%eax, %cr4
	mov	$0xc0000080, %ecx	/* EFER: long mode */
	rdmsr
	or	$0x100, %eax
	wrmsr
	mov	%cr0, %eax
	and	$~0xc, %eax		/* no FPU emulation, no task switched */
	or	$0x80000003, %eax
	mov	%eax, %cr0
	lgdt	gdtr
	ljmp	$8, $long_mode

	.code64
long_mode:
	xor	%eax, %eax
	mov	%eax, %ss
	mov	%eax, %ds
	mov	%eax, %es
	mov	$stack_end, %rsp
	mov	$idt + 16 * IPI_VECTOR, %edi
	mov	$on_ipi, %eax
	call	set_gate
	mov	$idt + 16 * TIMER_VECTOR, %edi
	mov	$on_timer, %eax
	call	set_gate
	mov	$idt + 16 * 0xff, %edi
	mov	$on_spurious, %eax
	call	set_gate
	lidt	idtr
	mov	$0x1b, %ecx		/* x2APIC on */
	rdmsr
	or	$0xc00, %eax
	wrmsr
	xor	%edx, %edx
	mov	$0x80f, %ecx		/* APIC on, spurious vector 0xff */
	mov	$0x1ff, %eax
	wrmsr
	mov	$0x83e, %ecx		/* timer: divide by 16, periodic, 10 ms of Xen's 100 MHz bus */
	mov	$3, %eax
	wrmsr
	mov	$0x832, %ecx
	mov	$0x20000 + TIMER_VECTOR, %eax
	wrmsr
	mov	$0x838, %ecx
	mov	$62500, %eax
	wrmsr
	fninit
	flds	three
	movsd	one, %xmm7
	mov	$1, %r12		/* the value */
	xor	%r13, %r13		/* the round */
	mov	$MULTIPLIER, %r14
	movabs	$0x1111111111111111, %rbx
	movabs	$0x2222222222222222, %rbp
	movabs	$0x3333333333333333, %rsi
	movabs	$0x4444444444444444, %rdi
	movabs	$0x5555555555555555, %r8
	movabs	$0x6666666666666666, %r9
	movabs	$0x7777777777777777, %r10
	movabs	$0x8888888888888888, %r11
	movabs	$0x9999999999999999, %r15
	sti

round:	inc	%r13
	mov	%r13, BEGUN
	imul	%r14, %r12
	inc	%r12
	mulsd	growth, %xmm7
	fadds	half
	mov	$2000, %ecx
1:	dec	%ecx
	jnz	1b
	pause				/* others on the same processor have their turn, under emulation, too */
	.macro	check number, register
	movabs	$0x\number\number\number\number\number\number\number\number, %rax
	cmp	%rax, %\register
	je	3f
	incq	WRONG
3:
	.endm
	check	11, rbx
	check	22, rbp
	check	33, rsi
	check	44, rdi
	check	55, r8
	check	66, r9
	check	77, r10
	check	88, r11
	check	99, r15
	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
	cmp	TSC, %rax
	jae	1f
	incq	TSC_BACK
1:	mov	%rax, TSC
	mov	%r12, VALUE
	movsd	%xmm7, SSE
	fstl	X87
	mov	%r13, ROUND
	cmpq	$0, SEND
	je	round
	decq	SEND
	incq	SENT
	xor	%edx, %edx		/* to APIC id 0 */
	mov	$IPI_VECTOR, %eax
	mov	$0x830, %ecx
	wrmsr
	jmp	round

on_ipi:	push	%rax
	push	%rcx
	push	%rdx
	incq	IPIS
	jmp	handled
on_timer:
	push	%rax
	push	%rcx
	push	%rdx
	incq	TICKS
handled:
	mov	$0x80b, %ecx		/* end of interrupt */
	xor	%eax, %eax
	xor	%edx, %edx
	wrmsr
	pop	%rdx
	pop	%rcx
	pop	%rax
on_spurious:
	iretq

set_gate:				/* at %rdi, to %eax */
	mov	%ax, (%rdi)
	movw	$8, 2(%rdi)
	movw	$0x8e00, 4(%rdi)
	shr	$16, %eax
	mov	%ax, 6(%rdi)
	ret

	.data
line:	.asciz "xenspan: the beating guest runs\n"
	.align 8
one:	.double 1.0
growth:	.double 1.0000001
three:	.float 3.0
half:	.float 0.5
	.align 16
gdt:	.quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff
gdtr:	.word 23
	.quad gdt
idtr:	.word 4095
	.quad idt
	.align 4096
idt:	.fill 4096, 1, 0
pml4:	.quad pdpt + 3
	.fill 511, 8, 0
pdpt:	.quad pages + 3
	.fill 511, 8, 0
pages:	.set address, 0			/* 1 GiB, each byte at its own address */
	.rept 512
	.quad address + 0x83
	.set address, address + 0x200000
	.endr
	.fill 4096, 1, 0
stack_end:
