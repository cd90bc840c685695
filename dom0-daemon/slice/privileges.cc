#include "dom0-daemon/slice/privileges.h"

#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>

namespace xenspan::slice {
namespace {

// Frames and rights, connections to the other slices, threads, signals, time. No files, no
// processes.
constexpr std::array kAllowed = {
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(pwritev),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    SCMP_SYS(socket),
    SCMP_SYS(connect),
    SCMP_SYS(setsockopt),
    SCMP_SYS(getsockopt),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(accept4),
    SCMP_SYS(shutdown),
    SCMP_SYS(close),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(epoll_create1),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2),
    SCMP_SYS(eventfd2),
    SCMP_SYS(timerfd_create),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(fcntl),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(futex),
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mprotect),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(fallocate),
    SCMP_SYS(ioctl),
    SCMP_SYS(clone),
    SCMP_SYS(clone3),
    SCMP_SYS(rseq),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_setaffinity),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(sched_setscheduler),
    SCMP_SYS(sched_getscheduler),
    SCMP_SYS(sched_getparam),
    SCMP_SYS(prctl),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(tgkill),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(getrandom),
    SCMP_SYS(pause),
    SCMP_SYS(getrusage),
    SCMP_SYS(membarrier),
    SCMP_SYS(sched_get_priority_max),
    SCMP_SYS(sched_get_priority_min),
    SCMP_SYS(arch_prctl),
};

}  // namespace

void keep_to_cores(const Order& order) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  for (const auto& vcpu : order.slice.vcpus)
    if (vcpu.host == order.slice.self && vcpu.core >= 0 && vcpu.core < CPU_SETSIZE)
      CPU_SET(vcpu.core, &cores);
  if (CPU_COUNT(&cores) == 0)
    for (const int core : order.cores)
      if (core >= 0 && core < CPU_SETSIZE) CPU_SET(core, &cores);
  if (CPU_COUNT(&cores) > 0) ::sched_setaffinity(0, sizeof cores, &cores);
}

Status become_user(const Order& order) {
  const rlimit priority{60, 60};
  ::setrlimit(RLIMIT_RTPRIO,
              &priority);  // without it service threads are ordinary: slower, not wrong
  if (::geteuid() == 0) {
    const std::vector<gid_t> groups(order.groups.begin(), order.groups.end());
    if (::setgroups(groups.size(), groups.data()) != 0 ||
        ::setresgid(order.gid, order.gid, order.gid) != 0 ||
        ::setresuid(order.uid, order.uid, order.uid) != 0)
      return system_error(errno, "cannot become user " + std::to_string(order.uid));
  } else if (::geteuid() != order.uid) {
    return Error{EPERM,
                 "cannot become user " + std::to_string(order.uid) + ": start xenspand as root"};
  }
  // Changing users cleared both. /proc/self must be the user's own for programs that look at it.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::prctl(PR_SET_DUMPABLE, 1);
  return {};
}

Status confine() {
  const std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter(
      ::seccomp_init(SCMP_ACT_ERRNO(EPERM)), &::seccomp_release);
  if (!filter) return Error{ENOMEM, "cannot make the system call filter"};
  for (const int call : kAllowed)
    if (const int error = ::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 0); error != 0)
      return system_error(-error, "cannot make the system call filter");
  ::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_TSYNC, 1);
  if (const int error = ::seccomp_load(filter.get()); error != 0)
    return system_error(-error, "cannot load the system call filter",
                        "use a kernel with CONFIG_SECCOMP_FILTER");
  return {};
}

}  // namespace xenspan::slice
