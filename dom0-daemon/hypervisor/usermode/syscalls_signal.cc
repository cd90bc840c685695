// Signal system calls of a guest thread: its mask and signal stack are its own, everything else is
// the home's.
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "dom0-daemon/hypervisor/usermode/guest_thread.h"
#include "dom0-daemon/hypervisor/usermode/home.h"
#include "dom0-daemon/hypervisor/usermode/slice.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint64_t kUnblockable = signal_bit(SIGKILL) | signal_bit(SIGSTOP);
constexpr std::size_t kMaskBytes = 8;
constexpr std::size_t kLeastStack = 2048;  // MINSIGSTKSZ of the kernel

}  // namespace

std::int64_t GuestThread::send_signal(int pid, int tid, int signo, const siginfo_t* given) {
  siginfo_t info{};
  if (given != nullptr) {
    info = *given;
  } else {
    info.si_code = tid != 0 ? SI_TKILL : SI_USER;
    info.si_pid = slice_.home_pid();
    info.si_uid = ::getuid();
  }
  info.si_signo = signo;
  Writer(request_).put(std::int32_t{pid}).put(std::int32_t{tid}).put(std::int32_t{signo}).put(info);
  ask(Op::kSendSignal, request_, answer_);
  // A signal to itself is delivered before the call returns.
  if (tid == this->tid() || tid == 0) kicked_ = true;
  return Reader(answer_).get<std::int64_t>();
}

std::int64_t GuestThread::signal_call(const Call& call, ucontext_t& context, bool& finished) {
  const auto& args = call.args;
  switch (call.number) {
    case SYS_rt_sigaction: {
      if (args[3] != kMaskBytes) return -EINVAL;
      GuestAction action{};
      if (args[1] != 0 && !read(&action, args[1], sizeof action)) return -EFAULT;
      Writer(request_)
          .put(static_cast<std::int32_t>(args[0]))
          .put(static_cast<std::uint8_t>(args[1] != 0))
          .put(action);
      ask(Op::kSigaction, request_, answer_);
      Reader in(answer_);
      const auto result = in.get<std::int64_t>();
      const auto old = in.get<GuestAction>();
      if (result == 0 && args[2] != 0 && !write(args[2], &old, sizeof old)) return -EFAULT;
      return result;
    }
    case SYS_rt_sigprocmask: {
      if (args[3] != kMaskBytes) return -EINVAL;
      std::uint64_t set = 0;
      if (args[1] != 0 && !read(&set, args[1], sizeof set)) return -EFAULT;
      if (args[2] != 0 && !write(args[2], &mask_, sizeof mask_)) return -EFAULT;
      if (args[1] == 0) return 0;
      const std::uint64_t before = mask_;
      switch (args[0]) {
        case SIG_BLOCK: mask_ |= set; break;
        case SIG_UNBLOCK: mask_ &= ~set; break;
        case SIG_SETMASK: mask_ = set; break;
        default: return -EINVAL;
      }
      mask_ &= ~kUnblockable;
      // Something unblocked may be pending, and the home should know what is blocked. Telling is a
      // round trip on a remote host, so thread start-up and the like, which only restore a mask,
      // wait for the pump's kick instead.
      if (before != mask_ && slice_.is_home()) kicked_ = true;
      return 0;
    }
    case SYS_rt_sigpending: {
      request_.clear();
      ask(Op::kPending, request_, answer_);
      const std::uint64_t set = Reader(answer_).get<std::uint64_t>() & mask_;
      return write(args[0], &set, sizeof set) ? 0 : -EFAULT;
    }
    case SYS_rt_sigreturn:
      finished = true;
      if (!pop_frame(context)) {
        siginfo_t info{};
        info.si_signo = SIGSEGV;
        on_guest_fault(SIGSEGV, info, context);
      }
      kicked_ = kicked_ || slice_.is_home();
      return 0;
    case SYS_rt_sigsuspend:
    case SYS_pause: {
      std::uint64_t during = mask_;
      if (call.number == SYS_rt_sigsuspend) {
        if (args[1] != kMaskBytes || !read(&during, args[0], sizeof during)) return -EFAULT;
        during &= ~kUnblockable;
      }
      const std::uint64_t before = mask_;
      mask_ = during;
      for (;;) {  // until a handler is to run
        request_.clear();
        ask(Op::kPending, request_, answer_);
        if ((Reader(answer_).get<std::uint64_t>() & ~during) != 0) {
          saved_mask_ = before;
          restore_mask_ = true;
          context.uc_mcontext.gregs[REG_RAX] = -EINTR;
          if (take_signal(context, -EINTR, -1)) {
            finished = true;
            return 0;
          }
          restore_mask_ = false;
        }
        if (called_away()) {
          mask_ = before;
          return kStartAgain;
        }
        const timespec nap{0, 2'000'000};
        ::nanosleep(&nap, nullptr);  // a kick ends it early
      }
    }
    case SYS_rt_sigtimedwait: {
      std::uint64_t set = 0;
      std::int64_t timeout = -1;
      if (args[3] != kMaskBytes) return -EINVAL;
      if (!read(&set, args[0], sizeof set)) return -EFAULT;
      if (args[2] != 0) {
        timespec given{};
        if (!read(&given, args[2], sizeof given)) return -EFAULT;
        timeout = time_left(std::int64_t{given.tv_sec} * 1'000'000'000 + given.tv_nsec);
      }
      Writer(request_).put(set).put(timeout);
      ask(Op::kSignalWait, request_, answer_);
      Reader in(answer_);
      const auto result = in.get<std::int32_t>();
      const auto info = in.get<siginfo_t>();
      if (result > 0 && args[1] != 0 && !write(args[1], &info, sizeof info)) return -EFAULT;
      return result;
    }
    case SYS_kill:
      return send_signal(
          static_cast<int>(args[0]) == 0 ? slice_.home_pid() : static_cast<int>(args[0]), 0,
          static_cast<int>(args[1]), nullptr);
    case SYS_tkill:
      return send_signal(0, static_cast<int>(args[0]), static_cast<int>(args[1]), nullptr);
    case SYS_tgkill:
      return send_signal(static_cast<int>(args[0]), static_cast<int>(args[1]),
                         static_cast<int>(args[2]), nullptr);
    case SYS_rt_sigqueueinfo:
    case SYS_rt_tgsigqueueinfo: {
      const bool to_thread = call.number == SYS_rt_tgsigqueueinfo;
      siginfo_t info{};
      if (!read(&info, args[to_thread ? 3 : 2], sizeof info)) return -EFAULT;
      return send_signal(static_cast<int>(args[0]), to_thread ? static_cast<int>(args[1]) : 0,
                         static_cast<int>(args[to_thread ? 2 : 1]), &info);
    }
    case SYS_sigaltstack: {
      stack_t old = guest_stack_;
      const std::uint64_t offset = static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RSP]) -
                                   reinterpret_cast<std::uint64_t>(guest_stack_.ss_sp);
      const bool on_it = (guest_stack_.ss_flags & SS_DISABLE) == 0 && offset < guest_stack_.ss_size;
      if (on_it) old.ss_flags |= SS_ONSTACK;
      stack_t wanted{};
      if (args[0] != 0) {
        if (on_it) return -EPERM;
        if (!read(&wanted, args[0], sizeof wanted)) return -EFAULT;
        if ((wanted.ss_flags & SS_DISABLE) == 0 && wanted.ss_size < kLeastStack) return -ENOMEM;
      }
      if (args[1] != 0 && !write(args[1], &old, sizeof old)) return -EFAULT;
      if (args[0] != 0) guest_stack_ = wanted;
      return 0;
    }
    default: return -ENOSYS;
  }
}

}  // namespace xenspan::hypervisor::usermode
