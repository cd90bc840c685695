#include "dom0-daemon/hypervisor/usermode/runtime_signals.h"

#include <immintrin.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/log.h"
#include "dom0-daemon/hypervisor/usermode/guest_thread.h"
#include "dom0-daemon/hypervisor/usermode/thread_state.h"
#include "dom0-daemon/hypervisor/usermode/window.h"

extern "C" const char __executable_start;  // of the linker (ld(1), its default scripts)

namespace xenspan::hypervisor::usermode {
namespace {

constexpr unsigned long kHwcap2FsGsBase =
    1 << 1;                       // HWCAP2_FSGSBASE, arch/x86/include/uapi/asm/hwcap2.h
constexpr int kUserDispatch = 2;  // SYS_USER_DISPATCH, include/uapi/asm-generic/siginfo.h
// Page fault error code, Intel SDM vol. 3, 4.7.
constexpr greg_t kMappedFault = 1, kWriteFault = 2;

struct KernelAction {  // struct sigaction as rt_sigaction(2) wants it
  void (*handler)();
  unsigned long flags;
  void (*restorer)();
  unsigned long mask;
};

std::uint64_t pc_of(const ucontext_t& context) {
  return static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RIP]);
}

bool between(std::uint64_t pc, const char* start, const char* end) {
  return pc >= reinterpret_cast<std::uint64_t>(start) && pc < reinterpret_cast<std::uint64_t>(end);
}

// Whether the interrupted code can be gone on with as it is, without rt_sigreturn, which takes half
// a microsecond more: the kernel has left the whole vector state in its frame, and neither single
// steps nor code of another width are going on. Nothing that was not in the processor before may be
// loaded: a frame that a guest has written goes through the kernel.
bool can_resume(const ucontext_t& context) {
  constexpr greg_t kTrap = 0x100;
  std::uint16_t code_segment;
  __asm__("movw %%cs, %0" : "=r"(code_segment));
  const auto& registers = context.uc_mcontext.gregs;
  return (registers[REG_EFL] & kTrap) == 0 &&
         static_cast<std::uint16_t>(registers[REG_CSGSFS]) == code_segment &&
         has_extended_state(context.uc_mcontext.fpregs);
}

// A runtime copy hit an address the guest may not touch: go on at its fixup.
bool fix_up(ucontext_t& context) {
  const std::uint64_t pc = pc_of(context);
  if (!between(pc, xs_guest_access_start, xs_guest_access_end)) return false;
  const char* fixup = between(pc, xs_guest_copy_start, xs_guest_copy_end) ? xs_guest_copy_fixup
                                                                          : xs_guest_word_fixup;
  context.uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(fixup);
  return true;
}

// `addr2line -e xenspan-slice OFFSET` says where that is, unless it is in a shared library.
[[noreturn]] void runtime_fault(int signo, const siginfo_t& info, const ucontext_t& context) {
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (const int each : {SIGSEGV, SIGBUS, SIGABRT}) ::sigaction(each, &standard, nullptr);
  char thread[16] = {};
  ::prctl(PR_GET_NAME, thread);
  log::error("signal {} in the runtime at pc {:#x} (program + {:#x}), address {}, thread {} ({})",
             signo, pc_of(context),
             pc_of(context) - reinterpret_cast<std::uint64_t>(&__executable_start), info.si_addr,
             ::gettid(), thread);
  std::abort();
}

ThreadBlock* current_block() {
  ThreadBlock* block = nullptr;
  block = reinterpret_cast<ThreadBlock*>(_readgsbase_u64());
  return block;
}

// What a kick has found: code of the guest, which can be called away at once, or of the runtime,
// which looks when it is done (GuestThread::kicked_). Between the two lies the end of a signal's
// handling: what is resumed there is the guest's already, and the handling ends anew.
ucontext_t& kicked_context(ucontext_t& context) {
  const std::uint64_t pc = pc_of(context);
  if (!between(pc, xs_resume_start, xs_resume_end)) return context;
  auto& registers = context.uc_mcontext.gregs;
  if (between(pc, xs_resume_leave, xs_resume_end)) {
    registers[REG_RIP] = static_cast<greg_t>(current_block()->resume_pc);
    return context;
  }
  if (between(pc, xs_resume_loaded, xs_resume_end)) registers[REG_RSP] -= 8;
  registers[REG_RIP] = reinterpret_cast<greg_t>(xs_resume_start);
  return *reinterpret_cast<ucontext_t*>(registers[REG_RSP]);
}

bool is_guest(const ucontext_t& context) {
  // A guest that jumped outside the window is recognised by its stack: the runtime never runs on
  // one of the guest's.
  return in_window(pc_of(context)) ||
         in_window(static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RSP]));
}

}  // namespace

extern "C" Resumption xs_on_signal(int signo, siginfo_t* info, ucontext_t* context,
                                   std::uint64_t fs) {
  GuestThread* thread = current_block()->thread;
  if (signo == kKickSignal) {
    if (thread == nullptr) return {fs, false};
    const int saved = errno;
    ucontext_t& kicked = kicked_context(*context);
    const bool in_guest = is_guest(kicked);
    if (in_guest) thread->guest_fs = fs;
    thread->on_kick(kicked);
    errno = saved;
    return {in_guest ? thread->guest_fs : fs, false};
  }
  if (thread == nullptr) runtime_fault(signo, *info, *context);
  if (signo == SIGSYS && info->si_code == kUserDispatch) {
    const std::uint64_t called_at = pc_of(*context);
    thread->guest_fs = fs;
    thread->on_syscall(*context);
    // Wherever else it goes on, a frame of the guest's or another host's may have been loaded.
    return {thread->guest_fs, pc_of(*context) == called_at && can_resume(*context)};
  }
  const bool in_guest = is_guest(*context);
  const int saved = errno;
  const auto address = reinterpret_cast<std::uint64_t>(info->si_addr);
  const greg_t cause = context->uc_mcontext.gregs[REG_ERR];
  if (signo == SIGBUS && info->si_code == BUS_ADRERR && in_window(address) &&
      thread->on_page_fault(address, (cause & kWriteFault) != 0, (cause & kMappedFault) != 0,
                            pc_of(*context))) {
    errno = saved;
    if (!in_guest || !thread->called_away()) return {fs, can_resume(*context)};
    thread->guest_fs = fs;
    thread->go(*context, false);  // the kick came while the page was fetched
    return {thread->guest_fs, false};
  }
  if (!in_guest) {
    if (!fix_up(*context)) runtime_fault(signo, *info, *context);
    errno = saved;
    return {fs, false};
  }
  thread->guest_fs = fs;
  siginfo_t told = *info;
  int guest_signo = signo;
  if (signo == SIGBUS &&
      info->si_code == BUS_ADRERR) {  // no such mapping or right in the guest's layout
    guest_signo = told.si_signo = SIGSEGV;
    told.si_code = SEGV_ACCERR;
  }
  thread->on_guest_fault(guest_signo, told, *context);
  return {thread->guest_fs, false};
}

Status install_signal_handlers() {
  if ((::getauxval(AT_HWCAP2) & kHwcap2FsGsBase) == 0)
    return Error{ENOTSUP,
                 "this processor or kernel has no FSGSBASE: use Linux 5.9 or newer on a processor "
                 "of 2012 or later"};
  constexpr unsigned long kRestorer =
      0x04000000;  // SA_RESTORER, arch/x86/include/uapi/asm/signal.h
  KernelAction action{};
  action.handler = reinterpret_cast<void (*)()>(&xs_signal_entry);
  action.flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | kRestorer;
  action.restorer = &xs_restorer;
  for (const int signo : {SIGSYS, SIGBUS, SIGSEGV, SIGILL, SIGFPE, SIGTRAP, kKickSignal})
    if (::syscall(SYS_rt_sigaction, signo, &action, nullptr, sizeof action.mask) != 0)
      return system_error(errno, "cannot install the handler of signal " + std::to_string(signo));
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, nullptr);
  // The calling thread's own faults, and those of threads that never enter a block, are told too.
  leave_thread_block();
  return {};
}

void enter_thread_block(ThreadBlock& block) {
  block.host_fs = _readfsbase_u64();
  _writegsbase_u64(reinterpret_cast<std::uint64_t>(&block));
  // A thread may have been created by one that blocks signals, and a blocked SIGBUS ends the
  // process.
  sigset_t none;
  ::sigemptyset(&none);
  ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
}

void leave_thread_block() {
  // Signals that may still come find an empty block.
  static thread_local ThreadBlock ended;
  ended = ThreadBlock{};
  enter_thread_block(ended);
}

SignalsHeld::SignalsHeld() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before_);
}

SignalsHeld::~SignalsHeld() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

}  // namespace xenspan::hypervisor::usermode
