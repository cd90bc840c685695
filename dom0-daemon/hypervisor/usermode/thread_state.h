// A guest thread on its way from one host to another: all that its kernel thread and GuestThread
// knew of it. What the home keeps (pending signals, affinity, futex queues) stays there.
//
// In a packet: ThreadState, then the floating point and vector registers, component by component,
// because processors with the same features may lay out their XSAVE areas differently (Intel SDM
// vol. 1, 13.5; APM vol. 2, 11.5). The bytes come from another slice: a reader checks them all
// before it uses any. Threading: pure functions.
#pragma once

#include <array>
#include <cstdint>

#include "dom0-daemon/hypervisor/usermode/packet.h"

namespace xenspan::hypervisor::usermode {

inline constexpr std::uint32_t kThreadStateVersion = 1;

struct ThreadState {
  std::uint32_t version = kThreadStateVersion;
  std::uint32_t bytes = sizeof(ThreadState);
  std::int32_t tid = 0;
  std::uint32_t vcpu = 0;                          // the home's word, not the old slice's
  std::array<std::uint64_t, 17> registers{};       // R8 .. RIP, in gregset_t's order
  std::uint64_t flags = 0, fs = 0;                 // RFLAGS, FS base
  std::uint64_t mask = 0, saved_mask = 0;          // blocked signals, rt_sigsuspend's
  std::uint64_t stack_start = 0, stack_bytes = 0;  // sigaltstack
  std::uint64_t robust_list = 0, child_tid = 0;
  std::int64_t deadline = 0;  // of a system call that is started again, see GuestThread
  std::int32_t stack_flags = 0;
  std::uint8_t restore_mask = 0;
  std::uint8_t in_call = 0;  // 1: RAX is the number of a system call to be started again
  std::uint16_t reserved = 0;
  std::array<char, 16> name{};
};

// Whether a signal frame holds the whole vector state at uc_mcontext.fpregs, as XSAVE writes it.
bool has_extended_state(const void* fpregs);
// Appends what a signal frame holds at uc_mcontext.fpregs. False: there is a register set that this
// program does not know how to move.
bool put_vector_state(const void* fpregs, Writer& out);
// Whether take_vector_state() will do on this machine; reads what it would.
bool check_vector_state(Reader& in);
// Into the signal frame of a thread on this machine, which keeps its own kind and size.
bool take_vector_state(Reader& in, void* fpregs);

// A state with its vector registers, of the right version and sizes, that may be loaded here.
bool check_thread_state(const Packet& packet);

// The user's flags (FIX_EFLAGS of the kernel): the others stay as they are.
inline constexpr std::uint64_t kUserFlags = 0x50dd5;

}  // namespace xenspan::hypervisor::usermode
