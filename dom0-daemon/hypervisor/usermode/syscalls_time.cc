// Clocks, sleeping and interval timers of a guest thread. Clocks are the home's: a remote host adds
// the difference measured when its slice joined, so that times compare between threads.
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include <cerrno>

#include "dom0-daemon/hypervisor/usermode/guest_thread.h"
#include "dom0-daemon/hypervisor/usermode/slice.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

std::int64_t nanoseconds(const timespec& time) {
  return std::int64_t{time.tv_sec} * kSecond + time.tv_nsec;
}

timespec timespec_of(std::int64_t ns) {
  timespec time{};
  time.tv_sec = ns / kSecond;
  time.tv_nsec = ns % kSecond;
  if (time.tv_nsec < 0) {
    time.tv_nsec += kSecond;
    --time.tv_sec;
  }
  return time;
}

std::int64_t offset_of(const Slice& slice, clockid_t clock) {
  switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_TAI: return slice.realtime_offset();
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME: return slice.monotonic_offset();
    default: return 0;  // CPU time is the thread's own
  }
}

}  // namespace

std::int64_t GuestThread::time_call(const Call& call) {
  slice_.local_calls.fetch_add(1, std::memory_order_relaxed);
  switch (call.number) {
    case SYS_clock_gettime: {
      const auto clock = static_cast<clockid_t>(call.args[0]);
      timespec now{};
      if (::clock_gettime(clock, &now) != 0) return -errno;
      if (const std::int64_t offset = offset_of(slice_, clock); offset != 0)
        now = timespec_of(nanoseconds(now) + offset);
      return write(call.args[1], &now, sizeof now) ? 0 : -EFAULT;
    }
    case SYS_clock_getres: {
      timespec resolution{};
      if (::clock_getres(static_cast<clockid_t>(call.args[0]), &resolution) != 0) return -errno;
      return call.args[1] == 0 || write(call.args[1], &resolution, sizeof resolution) ? 0 : -EFAULT;
    }
    case SYS_gettimeofday:
    case SYS_time: {
      timespec now{};
      ::clock_gettime(CLOCK_REALTIME, &now);
      now = timespec_of(nanoseconds(now) + slice_.realtime_offset());
      if (call.number == SYS_time)
        return call.args[0] == 0 || write(call.args[0], &now.tv_sec, sizeof now.tv_sec) ? now.tv_sec
                                                                                        : -EFAULT;
      const timeval value{now.tv_sec, now.tv_nsec / 1000};
      const struct timezone zone {};
      if (call.args[0] != 0 && !write(call.args[0], &value, sizeof value)) return -EFAULT;
      if (call.args[1] != 0 && !write(call.args[1], &zone, sizeof zone)) return -EFAULT;
      return 0;
    }
    case SYS_nanosleep: return clock_sleep(call, CLOCK_MONOTONIC, 0, call.args[0], call.args[1]);
    case SYS_clock_nanosleep:
      return clock_sleep(call, static_cast<clockid_t>(call.args[0]), static_cast<int>(call.args[1]),
                         call.args[2], call.args[3]);
    default: return interval_timer(call);
  }
}

std::int64_t GuestThread::clock_sleep(const Call&, clockid_t clock, int flags,
                                      std::uint64_t request, std::uint64_t remain) {
  timespec wanted{};
  if (!read(&wanted, request, sizeof wanted)) return -EFAULT;
  if (wanted.tv_sec < 0 || wanted.tv_nsec < 0 || wanted.tv_nsec >= kSecond) return -EINVAL;
  if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC && clock != CLOCK_BOOTTIME)
    return -EINVAL;
  // An absolute time on this host's clock: a kick whose signal is not ours sleeps on without losing
  // time.
  timespec deadline{};
  if (deadline_ != 0) {  // started again
    deadline = timespec_of(deadline_ - offset_of(slice_, clock));
  } else if ((flags & TIMER_ABSTIME) != 0) {
    deadline = timespec_of(nanoseconds(wanted) - offset_of(slice_, clock));
  } else {
    ::clock_gettime(clock, &deadline);
    deadline = timespec_of(nanoseconds(deadline) + nanoseconds(wanted));
  }
  for (;;) {
    const int error =
        kicked_.load() ? EINTR : ::clock_nanosleep(clock, TIMER_ABSTIME, &deadline, nullptr);
    if (error != EINTR) return -error;
    kicked_ = false;
    Packet& pending = fault_request_;  // free here: no guest memory is touched in between
    Writer(pending).put(std::uint8_t{0});
    ask(Op::kPending, pending, fault_answer_);
    if ((Reader(fault_answer_).get<std::uint64_t>() & ~mask_) == 0) {
      if (!called_away()) continue;
      deadline_ = nanoseconds(deadline) + offset_of(slice_, clock);
      return kStartAgain;
    }
    kicked_ = true;
    if (remain != 0 && (flags & TIMER_ABSTIME) == 0) {
      timespec now{};
      ::clock_gettime(clock, &now);
      const timespec left =
          timespec_of(std::max<std::int64_t>(0, nanoseconds(deadline) - nanoseconds(now)));
      if (!write(remain, &left, sizeof left)) return -EFAULT;
    }
    return -EINTR;
  }
}

std::int64_t GuestThread::interval_timer(const Call& call) {
  const auto in_ns = [](const timeval& value) {
    return std::int64_t{value.tv_sec} * kSecond + value.tv_usec * 1000;
  };
  const auto in_timeval = [](std::int64_t ns) {
    return timeval{ns / kSecond, (ns % kSecond) / 1000};
  };
  std::int64_t value = 0, interval = 0;
  std::uint8_t set = 1;
  if (call.number == SYS_alarm) {
    value = static_cast<std::int64_t>(call.args[0] & 0xffffffff) * kSecond;
  } else {
    if (call.args[0] != ITIMER_REAL)
      return -EINVAL;  // CPU-time timers would need the sum over all hosts
    set = call.number == SYS_setitimer && call.args[1] != 0;
    itimerval given{};
    if (set != 0 && !read(&given, call.args[1], sizeof given)) return -EFAULT;
    value = in_ns(given.it_value);
    interval = in_ns(given.it_interval);
  }
  Writer(request_).put(value).put(interval).put(set);
  ask(Op::kTimer, request_, answer_);
  Reader in(answer_);
  const auto old_value = in.get<std::int64_t>();
  const auto old_interval = in.get<std::int64_t>();
  if (call.number == SYS_alarm) return (old_value + kSecond - 1) / kSecond;
  const std::uint64_t to = call.number == SYS_setitimer ? call.args[2] : call.args[1];
  const itimerval old{in_timeval(old_interval), in_timeval(old_value)};
  return to == 0 || write(to, &old, sizeof old) ? 0 : -EFAULT;
}

}  // namespace xenspan::hypervisor::usermode
