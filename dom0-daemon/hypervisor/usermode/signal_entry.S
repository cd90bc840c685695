/* The few instructions that cannot be C++: switching between a guest thread's two lives, and copies that survive a bad
   guest address. Offsets are those of ThreadBlock and StartRegisters in thread_block.h. System V AMD64 ABI. */
#if defined(__CET__)
#include <cet.h>
#endif
        .text

        /* void xs_signal_entry(int signo, siginfo_t*, ucontext_t*): called by the kernel on the thread's signal stack. The
           interrupted code may be the guest (guest FS base, selector 1) or the runtime itself (nested fault, kick).
           xs_on_signal(signo, info, context, fs) returns the FS base to go on with, and whether to do so without the
           kernel (Resumption in thread_block.h). */
        .globl  xs_signal_entry
        .type   xs_signal_entry, @function
        .align  16
xs_signal_entry:
        pushq   %rbx
        pushq   %r12
        pushq   %r13
        movzbl  %gs:0, %ebx
        movb    $0, %gs:0
        rdfsbase %rcx
        movq    %gs:8, %rax
        wrfsbase %rax
        call    xs_on_signal
        wrfsbase %rax
        movb    %bl, %gs:0
        popq    %r13
        popq    %r12
        popq    %rbx
        testq   %rdx, %rdx
        jnz     xs_resume
        ret
        .size   xs_signal_entry, . - xs_signal_entry

        /* What rt_sigreturn does, where the signal mask and the signal stack are as they were: loads the interrupted
           code's vector state, flags and registers from the ucontext_t (at %rsp, behind the restorer's address) and goes
           on there. Not by iretq: QEMU before 9.1 reads its frame as the kernel would, which SMAP forbids. Nothing is
           written but uc_flags and the thread block, so that all else is still there when a kick interrupts this: then
           it begins again (kicked_context() in runtime_signals.cc). Offsets: struct ucontext and struct _fpx_sw_bytes,
           arch/x86/include/uapi/asm/{ucontext,sigcontext}.h; behind popfq less 8. */
        .globl  xs_resume_start, xs_resume_loaded, xs_resume_leave, xs_resume_end
        .type   xs_resume, @function
        .align  16
xs_resume:
        addq    $8, %rsp
xs_resume_start:
        movq    224(%rsp), %rdi
        movl    472(%rdi), %eax
        movl    476(%rdi), %edx
        xrstor64 (%rdi)
        movq    168(%rsp), %rax
        movq    %rax, %gs:40
        movq    176(%rsp), %rax
        movq    %rax, (%rsp)
        popfq
xs_resume_loaded:
        movq    32(%rsp), %r8
        movq    40(%rsp), %r9
        movq    48(%rsp), %r10
        movq    56(%rsp), %r11
        movq    64(%rsp), %r12
        movq    72(%rsp), %r13
        movq    80(%rsp), %r14
        movq    88(%rsp), %r15
        movq    96(%rsp), %rdi
        movq    104(%rsp), %rsi
        movq    112(%rsp), %rbp
        movq    120(%rsp), %rbx
        movq    128(%rsp), %rdx
        movq    136(%rsp), %rax
        movq    144(%rsp), %rcx
        movq    152(%rsp), %rsp
xs_resume_leave:
        jmp     *%gs:40
xs_resume_end:
        hlt
        .size   xs_resume, . - xs_resume

        .globl  xs_restorer, xs_restorer_start, xs_restorer_end
        .type   xs_restorer, @function
        .align  16
xs_restorer_start:
xs_restorer:
        movl    $15, %eax
        syscall
        nop
xs_restorer_end:
        hlt
        .size   xs_restorer, . - xs_restorer

        /* void xs_enter_guest(const StartRegisters*) */
        .globl  xs_enter_guest
        .type   xs_enter_guest, @function
        .align  16
xs_enter_guest:
        pushq   %rbp
        pushq   %rbx
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        subq    $8, %rsp
        stmxcsr (%rsp)
        fnstcw  4(%rsp)
        movq    %rsp, %gs:16
        ldmxcsr 144(%rdi)
        fldcw   148(%rdi)
        movq    136(%rdi), %rax
        wrfsbase %rax
        movq    128(%rdi), %rax
        movq    %rax, %gs:24
        movq    0(%rdi), %r8
        movq    8(%rdi), %r9
        movq    16(%rdi), %r10
        movq    24(%rdi), %r11
        movq    32(%rdi), %r12
        movq    40(%rdi), %r13
        movq    48(%rdi), %r14
        movq    56(%rdi), %r15
        movq    72(%rdi), %rsi
        movq    80(%rdi), %rbp
        movq    88(%rdi), %rbx
        movq    96(%rdi), %rdx
        movq    104(%rdi), %rax
        movq    112(%rdi), %rcx
        movq    120(%rdi), %rsp
        movq    64(%rdi), %rdi
        movb    $1, %gs:0
        jmp     *%gs:24
        .size   xs_enter_guest, . - xs_enter_guest

        /* The kernel makes SIGSYS of it, as the selector says; its handler fills in the thread's own registers. */
        .globl  xs_arrive
        .type   xs_arrive, @function
        .align  16
xs_arrive:
        syscall
        hlt
        .size   xs_arrive, . - xs_arrive

        /* void xs_leave_guest(void): FS base is glibc's and the selector is 0 already (signal entry). */
        .globl  xs_leave_guest
        .type   xs_leave_guest, @function
        .align  16
xs_leave_guest:
        movq    %gs:16, %rsp
        ldmxcsr (%rsp)
        fldcw   4(%rsp)
        addq    $8, %rsp
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbx
        popq    %rbp
        ret
        .size   xs_leave_guest, . - xs_leave_guest

        /* A fault between xs_guest_access_start and _end that cannot be served continues at the fixup. */
        .globl  xs_guest_access_start, xs_guest_access_end
        .globl  xs_guest_copy_start, xs_guest_copy_end, xs_guest_copy_fixup, xs_guest_word_fixup
        .globl  xs_guest_copy, xs_guest_load32, xs_guest_store32, xs_guest_compare_exchange32
        .type   xs_guest_copy, @function
        .type   xs_guest_load32, @function
        .type   xs_guest_store32, @function
        .type   xs_guest_compare_exchange32, @function
        .align  16
xs_guest_access_start:
xs_guest_copy:
xs_guest_copy_start:
        movq    %rdx, %rcx
        rep movsb
xs_guest_copy_end:
xs_guest_copy_fixup:
        movq    %rcx, %rax
        ret
        .size   xs_guest_copy, . - xs_guest_copy

xs_guest_load32:
        movl    (%rdi), %eax
        movl    %eax, (%rsi)
        xorl    %eax, %eax
        ret
        .size   xs_guest_load32, . - xs_guest_load32

xs_guest_store32:
        movl    %esi, (%rdi)
        xorl    %eax, %eax
        ret
        .size   xs_guest_store32, . - xs_guest_store32

xs_guest_compare_exchange32:
        movl    (%rsi), %eax
        lock cmpxchgl %edx, (%rdi)
        movl    %eax, (%rsi)
        xorl    %eax, %eax
        ret
        .size   xs_guest_compare_exchange32, . - xs_guest_compare_exchange32
xs_guest_access_end:
xs_guest_word_fixup:
        movl    $1, %eax
        ret

        .section .note.GNU-stack, "", @progbits
