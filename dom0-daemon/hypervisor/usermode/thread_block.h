// What a signal entry finds through the GS base before it can use anything else: the per-thread
// block.
//
// A guest thread has two lives on one kernel thread: the guest's, with the guest's FS base, stack
// and registers, and the runtime's, with glibc's FS base. The kernel enters the runtime by a signal
// (SIGSYS for a system call, SIGBUS for a page fault) with the guest's FS base still loaded; the
// entry stub switches by this block. Guests may not use GS: arch_prctl refuses it. Offsets are
// known to signal_entry.S. Threading: each block belongs to its thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xenspan::hypervisor::usermode {

class GuestThread;

struct ThreadBlock {
  // Syscall User Dispatch selector (Linux Documentation/admin-guide/syscall-user-dispatch.rst): 0
  // allow, 1 dispatch.
  volatile std::uint8_t selector = 0;
  std::uint8_t reserved[7] = {};
  std::uint64_t host_fs = 0;      // glibc's thread pointer for the runtime's life
  std::uint64_t host_sp = 0;      // where leave_guest() returns to
  std::uint64_t entry_pc = 0;     // first guest instruction, for enter_guest()
  GuestThread* thread = nullptr;  // nullptr for the runtime's own threads
  std::uint64_t resume_pc = 0;    // where the signal entry goes on, for its last instruction
};
static_assert(offsetof(ThreadBlock, selector) == 0);
static_assert(offsetof(ThreadBlock, host_fs) == 8);
static_assert(offsetof(ThreadBlock, host_sp) == 16);
static_assert(offsetof(ThreadBlock, entry_pc) == 24);
static_assert(offsetof(ThreadBlock, thread) == 32);
static_assert(offsetof(ThreadBlock, resume_pc) == 40);

// Integer registers and control words a guest thread starts with. Offsets are known to
// signal_entry.S; the order is that of gregset_t from R8 to RSP, then RIP, FS base, MXCSR and x87
// control word.
struct StartRegisters {
  std::uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp;
  std::uint64_t rip, fs;
  std::uint32_t mxcsr;
  std::uint32_t fcw;
};
static_assert(offsetof(StartRegisters, rsp) == 15 * 8);
static_assert(offsetof(StartRegisters, fs) == 17 * 8);
static_assert(offsetof(StartRegisters, fcw) == 18 * 8 + 4);

// How the code that a signal interrupted is gone on with.
struct Resumption {
  std::uint64_t fs;        // FS base
  std::uint64_t directly;  // 0: by rt_sigreturn; otherwise its registers are loaded by the entry
};

extern "C" {
// Runs the guest from these registers on the calling thread; returns when leave_guest() is called
// in it.
void xs_enter_guest(const StartRegisters* registers);
// A system call instruction in the runtime: where a thread that came from another host begins.
void xs_arrive();
// From a signal handler of a guest thread: abandons the guest and returns from its
// xs_enter_guest().
[[noreturn]] void xs_leave_guest();
// Entry of every signal the runtime handles; calls xs_on_signal() with glibc's FS base, which
// returns a Resumption.
void xs_signal_entry();
// Where the entry resumes what was interrupted without the kernel. The stack pointer is the address
// of the ucontext_t that it resumes, from `loaded` on 8 more, and at `leave` that of the resumed
// code. A thread found before that may begin again.
extern const char xs_resume_start[], xs_resume_loaded[], xs_resume_leave[], xs_resume_end[];
// The only code whose system calls are never dispatched: rt_sigreturn.
void xs_restorer();
extern const char xs_restorer_start[], xs_restorer_end[];
// Copies that survive a bad guest address: return the bytes not copied (0 on success).
std::uint64_t xs_guest_copy(void* to, const void* from, std::uint64_t bytes);
// 0, or 1 when the address is bad. compare_exchange: *expected gets the old value.
int xs_guest_load32(const void* address, std::uint32_t* value);
int xs_guest_store32(void* address, std::uint32_t value);
int xs_guest_compare_exchange32(void* address, std::uint32_t* expected, std::uint32_t desired);
extern const char xs_guest_access_start[], xs_guest_access_end[];
extern const char xs_guest_copy_start[], xs_guest_copy_end[];
extern const char xs_guest_copy_fixup[], xs_guest_word_fixup[];
}

}  // namespace xenspan::hypervisor::usermode
