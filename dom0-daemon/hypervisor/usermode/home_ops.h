// What a slice's threads ask of the home (on their line), and what the home tells a slice (on its
// control line).
//
// A frame on either: FrameHeader, then `bytes` of payload. Requests and answers alternate; an
// answer repeats the op.
#pragma once

#include <csignal>
#include <cstdint>

#include "dom0-daemon/hypervisor/usermode/thread_block.h"

namespace xenspan::hypervisor::usermode {

// Purposes of connections between slices beside the engine's lanes (see
// dsm-rdma/transport/tcp/secure_stream.h).
inline constexpr std::uint8_t kLinePurpose =
    1;  // remote slice -> home: one guest thread's system calls
inline constexpr std::uint8_t kControlPurpose =
    2;  // home -> remote slice: start and move threads, forbid ranges, kick

inline constexpr std::size_t kMaxFrame = (1 << 20) + (64 << 10);

enum class Op : std::uint16_t {
  // thread -> home
  kBind = 1,  // int32 tid -> nothing: this line now speaks for tid
  kClock,     // nothing -> the domain's clocks: int64 monotonic ns, int64 realtime ns; int32 its
              // process
              // id; u8[36] the home's boot id; what the domain's clocks are ahead of the home's:
              // int64, int64
  kIo,        // packed call (io_calls.h) -> answer
  kFutexEnqueue,  // u64 address, u32 bitset -> u64 ticket
  kFutexCancel,   // u64 ticket -> u8 was still queued
  kFutexSleep,    // u64 ticket, i64 ns (-1: for ever) -> i64 0, -ETIMEDOUT, -EINTR
  kFutexWake,     // u64 address, u32 count, u32 bitset -> i64 woken, u64 version of a lease
                  // (futex_leases.h) or 0
  kFutexRequeue,  // u64 from, u64 to, u32 wake, u32 move -> i64 woken, i64 moved
  kMemory,        // i64 number, u64[6] args -> i64 result: mmap and family
  kLayout,        // u64 address -> u64 version, u64 start, u64 end, i32 prot (-1: not mapped)
  kReserveTid,    // nothing -> i32 tid for the next kClone: the parent writes it where
                  // CLONE_PARENT_SETTID says first
  kClone,         // CloneRequest -> i64 tid or -errno
  kThreadExit,    // nothing -> nothing
  kExec,  // path, argv, envp: strings as u32 bytes and the bytes, vectors as u32 count and strings
          // -> i64 result, StartThread: where the new program starts
  kExitGroup,   // i32 status -> (no answer: the domain ends)
  kSigaction,   // i32 signo, u8 set, GuestAction -> i64 result, GuestAction old
  kSendSignal,  // i32 pid (0: by tid alone), i32 tid (0: process), i32 signo, siginfo -> i64 result
  kTakeSignal,  // u64 mask -> i32 signo (0: none), siginfo, GuestAction
  kSignalWait,  // u64 set, i64 ns -> i32 signo or -errno, siginfo
  kPending,     // nothing -> u64 set
  kTimer,       // i64 new value ns, i64 interval ns, u8 set -> i64 old value, i64 old interval
  kFault,     // FaultReport -> GuestAction if the guest handles it, else no answer: the domain ends
  kAffinity,  // i32 tid, u8 set, u64[16] mask -> i64 result, u64[16] mask, u8 1: now kMove
  kRefuse,    // text -> nothing: one line on the user's standard error
  kMove,      // ThreadState and its vector registers (thread_state.h) -> i64 0: the thread is now
              // elsewhere, this line is free; 1: it stays; -errno; u32 its vCPU
  // home -> slice
  kStartThread = 100,  // StartThread -> i64 0 or -errno (-ESTALE: that vCPU is not here)
  kForbid,             // u64 version, u64 start, u64 end -> nothing
  kKick,               // i32 tid -> nothing
  kFutexTakeBack,      // u64 address, u64 version -> nothing: its lease is over
  kCallAway,           // i32 tid -> nothing: a kick, and the thread asks with kMove where to be
  kTakeOver,           // as kMove's request -> i64 0 or -errno (as kStartThread)
  kPlace,              // u32 vCPU, u32 host, i32 core -> nothing: where it is from now on
  kTakeHome,  // u64 bytes of the home's state (home_state.h), u64 offset of this part, the part ->
              // i32
              // 0 or an errno, text: what is wrong. With the last part the slice has taken it, or
              // has changed nothing
};

struct FrameHeader {
  std::uint32_t bytes = 0;
  Op op{};
  std::uint16_t reserved = 0;
  std::uint64_t signal_mask = 0;  // thread -> home: the thread's blocked signals at this call
};

// struct sigaction as the kernel has it (asm/signal.h: handler, flags, restorer, mask).
struct GuestAction {
  std::uint64_t handler = 0;  // 0 SIG_DFL, 1 SIG_IGN
  std::uint64_t flags = 0;
  std::uint64_t restorer = 0;
  std::uint64_t mask = 0;
};

struct CloneRequest {
  StartRegisters registers;
  std::uint64_t flags;
  std::uint64_t child_tid;  // address or 0 (CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID)
  std::uint64_t signal_mask;
  std::int32_t tid;  // reserved before
};

struct StartThread {
  CloneRequest clone;
  std::uint32_t vcpu;
};

// Answer of a call at the home that a move (of the thread, or of the home's role) interrupted (the
// kernel's ERESTARTSYS): it is to be made again, and the guest sees nothing of it.
inline constexpr std::int32_t kStartAgain = -512;

struct FaultReport {
  std::int32_t signo, code;
  std::uint64_t pc, address;
};

}  // namespace xenspan::hypervisor::usermode
