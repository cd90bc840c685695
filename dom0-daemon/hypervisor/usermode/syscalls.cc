// A guest thread's system call: answered here when no shared state is involved, by the home
// otherwise.
#include <asm/prctl.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dom0-daemon/hypervisor/usermode/guest_thread.h"
#include "dom0-daemon/hypervisor/usermode/home.h"
#include "dom0-daemon/hypervisor/usermode/slice.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint64_t kThreadFlags = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;

enum class Group { kMemory, kFutex, kTime, kSignal, kProcess, kIgnored, kOther };

Group group_of(std::int64_t number) {
  switch (number) {
    case SYS_mmap:
    case SYS_munmap:
    case SYS_mprotect:
    case SYS_mremap:
    case SYS_brk:
    case SYS_madvise:
    case SYS_msync: return Group::kMemory;
    case SYS_futex: return Group::kFutex;
    case SYS_clock_gettime:
    case SYS_clock_getres:
    case SYS_gettimeofday:
    case SYS_time:
    case SYS_nanosleep:
    case SYS_clock_nanosleep:
    case SYS_alarm:
    case SYS_setitimer:
    case SYS_getitimer: return Group::kTime;
    case SYS_rt_sigaction:
    case SYS_rt_sigprocmask:
    case SYS_rt_sigpending:
    case SYS_rt_sigreturn:
    case SYS_rt_sigsuspend:
    case SYS_rt_sigtimedwait:
    case SYS_rt_sigqueueinfo:
    case SYS_rt_tgsigqueueinfo:
    case SYS_kill:
    case SYS_tkill:
    case SYS_tgkill:
    case SYS_sigaltstack:
    case SYS_pause: return Group::kSignal;
    case SYS_fork:
    case SYS_vfork:
    case SYS_execve:
    case SYS_execveat: return Group::kProcess;
    // Advice about memory the engine places itself, and settings without meaning across hosts:
    // accepted, without effect.
    case SYS_mlock:
    case SYS_mlock2:
    case SYS_munlock:
    case SYS_mlockall:
    case SYS_munlockall:
    case SYS_mbind:
    case SYS_set_mempolicy:
    case SYS_sched_setscheduler:
    case SYS_sched_setparam:
    case SYS_sched_setattr:
    case SYS_ioprio_set: return Group::kIgnored;
    default: return Group::kOther;
  }
}

// The write family raises SIGPIPE where the kernel would.
bool raises_sigpipe(const Call& call) {
  switch (call.number) {
    case SYS_write:
    case SYS_writev:
    case SYS_pwrite64:
    case SYS_pwritev:
    case SYS_sendfile:
    case SYS_splice: return true;
    case SYS_sendto: return (call.args[3] & 0x4000 /* MSG_NOSIGNAL */) == 0;
    case SYS_sendmsg: return (call.args[2] & 0x4000) == 0;
    default: return false;
  }
}

}  // namespace

void GuestThread::on_syscall(ucontext_t& context) {
  // The first one of a thread that comes from another host is its arrival (xs_arrive).
  if (arrival_.empty() || arrive(context))
    run_call(context);
  else if (kicked_.exchange(false))
    take_signal(context, 0, -1);
  if (called_away()) go(context, false);
}

void GuestThread::run_call(ucontext_t& context) {
  auto& registers = context.uc_mcontext.gregs;
  const std::int64_t number = registers[REG_RAX];
  for (;;) {
    bool finished = false;
    const std::int64_t result = dispatch(number, context, finished);
    const bool kicked = kicked_.exchange(false);
    if (finished) {  // rt_sigreturn: the registers are the guest's business; rax among them
      if (kicked) take_signal(context, 0, -1);
      deadline_ = 0;
      return;
    }
    const bool again = result == kStartAgain;
    const std::int64_t told = again ? -EINTR : result;
    registers[REG_RAX] = told;
    const bool interrupted = again || (result == -EINTR && number != SYS_rt_sigtimedwait);
    // Interrupted by a kick whose signal another thread took, or by a move: the guest must not see
    // that.
    if ((!kicked && result != -EINTR && !again) || take_signal(context, told, number) ||
        !interrupted) {
      deadline_ = 0;
      return;
    }
    registers[REG_RAX] = number;
    if (called_away()) go(context, true);
  }
}

std::int64_t GuestThread::dispatch(std::int64_t number, ucontext_t& context, bool& finished) {
  const auto& registers = context.uc_mcontext.gregs;
  Call call;
  call.number = number;
  call.args = {static_cast<std::uint64_t>(registers[REG_RDI]),
               static_cast<std::uint64_t>(registers[REG_RSI]),
               static_cast<std::uint64_t>(registers[REG_RDX]),
               static_cast<std::uint64_t>(registers[REG_R10]),
               static_cast<std::uint64_t>(registers[REG_R8]),
               static_cast<std::uint64_t>(registers[REG_R9])};
  switch (group_of(number)) {
    case Group::kMemory: {
      slice_.home_calls.fetch_add(1, std::memory_order_relaxed);
      Writer(request_).put(number).put(call.args);
      ask(Op::kMemory, request_, answer_);
      return Reader(answer_).get<std::int64_t>();
    }
    case Group::kFutex: return futex(call);
    case Group::kTime: return time_call(call);
    case Group::kSignal: return signal_call(call, context, finished);
    case Group::kProcess:
      if (number == SYS_execve || number == SYS_execveat) return exec_call(call, context, finished);
      return refuse_fork();
    case Group::kIgnored: return 0;
    case Group::kOther: break;
  }
  slice_.local_calls.fetch_add(1, std::memory_order_relaxed);
  const std::uint64_t first = call.args[0], second = call.args[1];
  switch (number) {
    case SYS_getpid: return slice_.home_pid();
    case SYS_gettid: return tid();
    case SYS_sched_yield: ::sched_yield(); return 0;
    case SYS_set_tid_address: start_.clone.child_tid = first; return tid();
    case SYS_set_robust_list:
      if (second != 24) return -EINVAL;  // sizeof(struct robust_list_head)
      robust_list_ = first;
      return 0;
    case SYS_arch_prctl:
      if (first == ARCH_SET_FS) {
        if (second >= (std::uint64_t{1} << 47)) return -EPERM;
        guest_fs = second;
        return 0;
      }
      if (first == ARCH_GET_FS) return write(second, &guest_fs, sizeof guest_fs) ? 0 : -EFAULT;
      return -EINVAL;
    case SYS_getrandom: {
      if (second > (1 << 20)) call.args[1] = 1 << 20;
      request_.resize(call.args[1]);
      const ssize_t got =
          ::getrandom(request_.data(), request_.size(), static_cast<unsigned>(call.args[2]));
      if (got < 0) return -errno;
      return write(first, request_.data(), static_cast<std::size_t>(got)) ? got : -EFAULT;
    }
    case SYS_getcpu: {
      const std::uint32_t values[2] = {start_.vcpu, 0};
      if (first != 0 && !write(first, &values[0], 4)) return -EFAULT;
      if (second != 0 && !write(second, &values[1], 4)) return -EFAULT;
      return 0;
    }
    case SYS_sched_getaffinity: return affinity_call(false, call);
    case SYS_sched_setaffinity: return affinity_call(true, call);
    case SYS_sched_getscheduler: return SCHED_OTHER;
    case SYS_sched_getparam: {
      const sched_param parameter{};
      return write(second, &parameter, sizeof parameter) ? 0 : -EFAULT;
    }
    case SYS_sched_get_priority_max:
    case SYS_sched_get_priority_min: {
      const long result = ::syscall(number, first);
      return result < 0 ? -errno : result;
    }
    case SYS_prctl:
      if (first == PR_SET_NAME) {
        std::string text;
        if (!read_string(text, second, 4096)) return -EFAULT;
        std::memset(name_, 0, sizeof name_);
        text.copy(name_, sizeof name_ - 1);
        return 0;
      }
      if (first == PR_GET_NAME) return write(second, name_, sizeof name_) ? 0 : -EFAULT;
      if (first == PR_GET_DUMPABLE) return 1;
      if (first == PR_SET_DUMPABLE || first == PR_SET_PDEATHSIG || first == PR_SET_TIMERSLACK ||
          first == PR_SET_VMA)
        return 0;
      return -EINVAL;
    case SYS_exit: leave(true);
    case SYS_exit_group:
      Writer(request_).put(static_cast<std::int32_t>(first));
      ask(Op::kExitGroup, request_, answer_);
      park();
    case SYS_clone:
    case SYS_clone3: return clone_call(number, context);
    case SYS_wait4:
    case SYS_waitid: return -ECHILD;  // there are no child processes
    case SYS_mincore: {
      const std::size_t pages = (second + 4095) / 4096;
      const std::vector<std::uint8_t> present(std::min<std::size_t>(pages, 1 << 20), 1);
      return write(call.args[2], present.data(), present.size()) ? 0 : -EFAULT;
    }
    case SYS_membarrier:
      // Guest memory is sequentially consistent between hosts; within one, faults and this call
      // order everything but other vCPUs' store buffers, which the real call drains for the threads
      // here.
      if (first == 0)
        return 0;  // MEMBARRIER_CMD_QUERY: nothing offered, callers fall back to their own barriers
      return -EINVAL;
    default: break;
  }
  if (!handles(number)) return -ENOSYS;
  // Timeouts in milliseconds; the others are counted down in the guest's memory.
  const bool is_epoll = number == SYS_epoll_wait || number == SYS_epoll_pwait;
  if (is_epoll || number == SYS_poll) {
    constexpr std::int64_t kMillisecond = 1'000'000;
    std::uint64_t& timeout = call.args[is_epoll ? 3 : 2];
    if (const auto wanted = static_cast<std::int32_t>(timeout); wanted > 0)
      timeout = static_cast<std::uint64_t>((time_left(wanted * kMillisecond) + kMillisecond - 1) /
                                           kMillisecond);
  }
  return home_io(call);
}

std::int64_t GuestThread::home_io(const Call& call) {
  slice_.home_calls.fetch_add(1, std::memory_order_relaxed);
  Progress progress;
  for (;;) {
    if (const int error = pack(call, progress, *this, request_); error != 0)
      return progress.done > 0 ? static_cast<std::int64_t>(progress.done) : error;
    ask(Op::kIo, request_, answer_);
    if (unpack(call, answer_, *this, progress) == Next::kFinished) break;
  }
  if (progress.result == -EPIPE && raises_sigpipe(call)) send_signal(0, tid(), SIGPIPE, nullptr);
  return progress.result;
}

std::int64_t GuestThread::clone_call(std::int64_t number, ucontext_t& context) {
  const auto& registers = context.uc_mcontext.gregs;
  CloneRequest wanted{};
  std::memcpy(&wanted.registers, registers,
              17 * sizeof(std::uint64_t));  // R8 .. RIP, in gregset_t's order
  std::uint64_t tls = 0, stack = 0, parent_tid = 0;
  if (number == SYS_clone3) {
    clone_args args{};
    const auto bytes = static_cast<std::size_t>(registers[REG_RSI]);
    if (bytes < CLONE_ARGS_SIZE_VER0 || bytes > 4096) return -EINVAL;
    if (!read(&args, static_cast<std::uint64_t>(registers[REG_RDI]), std::min(bytes, sizeof args)))
      return -EFAULT;
    if (args.set_tid_size != 0) return -EPERM;
    wanted.flags = args.flags;
    stack = args.stack + args.stack_size;
    parent_tid = args.parent_tid;
    wanted.child_tid = args.child_tid;
    tls = args.tls;
  } else {
    wanted.flags = static_cast<std::uint64_t>(registers[REG_RDI]);
    stack = static_cast<std::uint64_t>(registers[REG_RSI]);
    parent_tid = static_cast<std::uint64_t>(registers[REG_RDX]);
    wanted.child_tid = static_cast<std::uint64_t>(registers[REG_R10]);
    tls = static_cast<std::uint64_t>(registers[REG_R8]);
  }
  if ((wanted.flags & kThreadFlags) != kThreadFlags) return refuse_fork();
  wanted.registers.rax = 0;
  if (stack != 0) wanted.registers.rsp = stack;
  wanted.registers.fs = (wanted.flags & CLONE_SETTLS) != 0 ? tls : guest_fs;
  const auto* state = context.uc_mcontext.fpregs;
  wanted.registers.mxcsr = state->mxcsr;
  wanted.registers.fcw = state->cwd;
  wanted.signal_mask = mask_;
  request_.clear();
  ask(Op::kReserveTid, request_, answer_);
  wanted.tid = Reader(answer_).get<std::int32_t>();
  // Before the child runs: it may clear the same word when it ends.
  if ((wanted.flags & CLONE_PARENT_SETTID) != 0) write(parent_tid, &wanted.tid, sizeof wanted.tid);
  Writer(request_).put(wanted);
  ask(Op::kClone, request_, answer_);
  return Reader(answer_).get<std::int64_t>();
}

std::int64_t GuestThread::refuse_fork() {
  return refuse_process("fork", "process-level parallelism needs a Xen domain");
}

std::int64_t GuestThread::refuse_process(const std::string& what, const std::string& remedy) {
  static std::atomic<bool> told{false};
  if (!told.exchange(true)) {
    const std::string text =
        what + " is refused (ENOSYS): a user-mode domain is one process; " + remedy;
    Writer(request_).bytes(text.data(), text.size());
    ask(Op::kRefuse, request_, answer_);
  }
  return -ENOSYS;
}

std::int64_t GuestThread::affinity_call(bool set, const Call& call) {
  const std::size_t vcpus = slice_.places().size();
  const std::size_t kernel_bytes = (vcpus + 63) / 64 * 8;
  std::array<std::uint64_t, 16> mask{};
  const std::size_t given = std::min<std::size_t>(call.args[1], sizeof mask);
  if (set) {
    if (!read(mask.data(), call.args[2], given)) return -EFAULT;
  } else if (call.args[1] < kernel_bytes || call.args[1] % 8 != 0) {
    return -EINVAL;
  }
  Writer(request_)
      .put(static_cast<std::int32_t>(call.args[0]))
      .put(static_cast<std::uint8_t>(set))
      .put(mask);
  ask(Op::kAffinity, request_, answer_);
  Reader in(answer_);
  const auto result = in.get<std::int64_t>();
  mask = in.get<std::array<std::uint64_t, 16>>();
  if (in.get<std::uint8_t>() != 0) called_away_ = true;  // goes when this call returns
  if (result != 0 || set) return result;
  return write(call.args[2], mask.data(), kernel_bytes) ? static_cast<std::int64_t>(kernel_bytes)
                                                        : -EFAULT;
}

}  // namespace xenspan::hypervisor::usermode
