// Guest signal delivery: builds and takes down the frame a handler runs on, as the kernel does
// (arch/x86/kernel/signal_64.c).
#include <immintrin.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstring>

#include "dom0-daemon/hypervisor/usermode/guest_thread.h"
#include "dom0-daemon/hypervisor/usermode/home.h"
#include "dom0-daemon/hypervisor/usermode/slice.h"
#include "dom0-daemon/hypervisor/usermode/thread_state.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint64_t kRedZone = 128;      // System V AMD64 ABI 3.2.2
constexpr std::size_t kLegacyFpBytes = 512;  // FXSAVE area
constexpr std::size_t kSoftwareBytes = 464;  // struct _fpx_sw_bytes within it (asm/sigcontext.h)
constexpr std::uint32_t kXstateMagic = 0x46505853;

struct KernelContext {  // struct ucontext of the kernel; glibc's is longer
  std::uint64_t flags, link;
  stack_t stack;
  mcontext_t registers;
  std::uint64_t mask;
};
struct Frame {
  std::uint64_t return_address;
  KernelContext context;
  siginfo_t info;
};
static_assert(sizeof(KernelContext) == 304);

// Bytes of the floating point state at `state`, 512 when it is of the legacy kind.
std::uint32_t state_bytes(const void* state) {
  std::uint32_t software[2];
  std::memcpy(software, static_cast<const char*>(state) + kSoftwareBytes, sizeof software);
  return software[0] == kXstateMagic ? software[1] : static_cast<std::uint32_t>(kLegacyFpBytes);
}

// Calls that start again after a handler with SA_RESTART (signal(7)).
bool restarts(std::int64_t number) {
  switch (number) {
    case SYS_read:
    case SYS_readv:
    case SYS_write:
    case SYS_writev:
    case SYS_ioctl:
    case SYS_open:
    case SYS_openat:
    case SYS_wait4:
    case SYS_waitid:
    case SYS_accept:
    case SYS_accept4:
    case SYS_connect:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_flock:
    case SYS_fcntl:
    case SYS_futex:
    case SYS_getrandom: return true;
    default: return false;
  }
}

}  // namespace

void GuestThread::on_kick(ucontext_t& context) {
  if (in_window(static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RIP]))) {
    if (called_away()) go(context, false);
    take_signal(context, 0, -1);
  } else {
    kicked_ = true;
  }
}

// true when a handler has been set up. number < 0: not at the end of a system call.
bool GuestThread::take_signal(ucontext_t& context, std::int64_t syscall_result,
                              std::int64_t number) {
  Writer(request_).put(mask_);
  ask(Op::kTakeSignal, request_, answer_);
  Reader in(answer_);
  const auto signo = in.get<std::int32_t>();
  const auto info = in.get<siginfo_t>();
  const auto action = in.get<GuestAction>();
  if (!in.ok() || signo == 0) return false;
  if (number >= 0 && syscall_result == -EINTR && (action.flags & SA_RESTART) != 0 &&
      restarts(number)) {
    context.uc_mcontext.gregs[REG_RAX] = number;
    context.uc_mcontext.gregs[REG_RIP] -= 2;  // the syscall instruction
  }
  if (!push_frame(context, signo, info, action)) on_guest_fault(SIGSEGV, info, context);
  return true;
}

void GuestThread::on_guest_fault(int signo, const siginfo_t& info, ucontext_t& context) {
  FaultReport report{};
  report.signo = signo;
  report.code = info.si_code;
  report.pc = static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RIP]);
  report.address = reinterpret_cast<std::uint64_t>(info.si_addr);
  Writer(request_).put(report);
  ask(Op::kFault, request_, answer_);
  const auto action = Reader(answer_).get<GuestAction>();
  if (action.handler > 1 && push_frame(context, signo, info, action)) return;
  // No room for the handler's frame: as the kernel, end with the report.
  Writer(request_).put(std::int32_t{signo}).put(std::uint8_t{1}).put(GuestAction{});
  ask(Op::kSigaction, request_, answer_);
  Writer(request_).put(report);
  ask(Op::kFault, request_, answer_);
  park();
}

bool GuestThread::push_frame(ucontext_t& context, int signo, const siginfo_t& info,
                             const GuestAction& action) {
  auto& registers = context.uc_mcontext.gregs;
  std::uint64_t sp = static_cast<std::uint64_t>(registers[REG_RSP]) - kRedZone;
  const auto stack_start = reinterpret_cast<std::uint64_t>(guest_stack_.ss_sp);
  const bool has_stack = (guest_stack_.ss_flags & SS_DISABLE) == 0;
  const bool on_stack = has_stack && sp - stack_start < guest_stack_.ss_size;
  if ((action.flags & SA_ONSTACK) != 0 && has_stack && !on_stack)
    sp = stack_start + guest_stack_.ss_size;

  const void* state = context.uc_mcontext.fpregs;
  const std::uint32_t bytes = state_bytes(state);
  sp = (sp - bytes) & ~std::uint64_t{63};
  const std::uint64_t state_address = sp;
  if (!write(state_address, state, bytes)) return false;
  sp = ((sp - sizeof(Frame)) & ~std::uint64_t{15}) - 8;  // as after a call instruction

  Frame frame{};
  frame.return_address = action.restorer;
  frame.context.flags = context.uc_flags;
  frame.context.stack = guest_stack_;
  if (on_stack) frame.context.stack.ss_flags |= SS_ONSTACK;
  frame.context.registers = context.uc_mcontext;
  frame.context.registers.fpregs = reinterpret_cast<fpregset_t>(state_address);
  frame.context.mask = restore_mask_ ? saved_mask_ : mask_;
  restore_mask_ = false;
  frame.info = info;
  frame.info.si_signo = signo;
  if (!write(sp, &frame, sizeof frame)) return false;

  mask_ |= action.mask;
  if ((action.flags & SA_NODEFER) == 0) mask_ |= signal_bit(signo);
  registers[REG_RSP] = static_cast<greg_t>(sp);
  registers[REG_RIP] = static_cast<greg_t>(action.handler);
  registers[REG_RDI] = signo;
  registers[REG_RSI] = static_cast<greg_t>(sp + offsetof(Frame, info));
  registers[REG_RDX] = static_cast<greg_t>(sp + offsetof(Frame, context));
  registers[REG_RAX] = 0;
  registers[REG_EFL] &= ~greg_t{0x500};  // direction and trap flags
  return true;
}

void GuestThread::reset_registers(ucontext_t& context, const StartRegisters& start) {
  constexpr greg_t kFlags = 0x202;  // interrupts on, and the bit that is always 1
  auto& registers = context.uc_mcontext.gregs;
  for (int index = REG_R8; index <= REG_RIP; ++index) registers[index] = 0;
  registers[REG_RIP] = static_cast<greg_t>(start.rip);
  registers[REG_RSP] = static_cast<greg_t>(start.rsp);
  registers[REG_EFL] = kFlags;
  auto* state = context.uc_mcontext.fpregs;
  state->cwd = static_cast<std::uint16_t>(start.fcw);
  state->swd = state->ftw = state->fop = 0;
  state->rip = state->rdp = 0;
  state->mxcsr = start.mxcsr;
  std::memset(state->_st, 0, sizeof state->_st);
  std::memset(state->_xmm, 0, sizeof state->_xmm);
  // The XSAVE header's first word names what is not in its initial state (Intel SDM vol.
  // 1, 13.4.2).
  if (state_bytes(state) > kLegacyFpBytes)
    std::memset(reinterpret_cast<char*>(state) + kLegacyFpBytes, 0, sizeof(std::uint64_t));
}

bool GuestThread::pop_frame(ucontext_t& context) {
  auto& registers = context.uc_mcontext.gregs;
  KernelContext saved{};
  const auto sp = static_cast<std::uint64_t>(
      registers[REG_RSP]);  // the handler's return has taken return_address
  if (!read(&saved, sp, sizeof saved)) return false;
  for (int index = REG_R8; index <= REG_RIP; ++index)
    registers[index] = saved.registers.gregs[index];
  constexpr auto kFlags = static_cast<greg_t>(kUserFlags);
  registers[REG_EFL] = (registers[REG_EFL] & ~kFlags) | (saved.registers.gregs[REG_EFL] & kFlags);
  mask_ = saved.mask & ~(signal_bit(SIGKILL) | signal_bit(SIGSTOP));
  const auto state_address = reinterpret_cast<std::uint64_t>(saved.registers.fpregs);
  const std::uint32_t bytes = state_bytes(context.uc_mcontext.fpregs);
  if (state_address == 0) return true;
  // Into this signal's own frame, whose size and kind are the same; its software bytes stay.
  char software[kLegacyFpBytes - kSoftwareBytes];
  char* state = reinterpret_cast<char*>(context.uc_mcontext.fpregs);
  std::memcpy(software, state + kSoftwareBytes, sizeof software);
  std::uint32_t magic_at_end = 0;
  if (bytes > kLegacyFpBytes)
    std::memcpy(&magic_at_end, state + bytes - sizeof magic_at_end, sizeof magic_at_end);
  if (!read(state, state_address, bytes)) return false;
  std::memcpy(state + kSoftwareBytes, software, sizeof software);
  if (bytes > kLegacyFpBytes)
    std::memcpy(state + bytes - sizeof magic_at_end, &magic_at_end, sizeof magic_at_end);
  return true;
}

}  // namespace xenspan::hypervisor::usermode
