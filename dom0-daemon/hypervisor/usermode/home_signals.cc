// Signals at the home: actions are the process's, pending sets are threads' and the process's,
// delivery is the thread's own.
//
// A thread learns of a signal by a kick (a real signal to its kernel thread) and takes it with
// kTakeSignal when it is at a point where a handler can run. A kick can come too early (before a
// blocking call) or too late; the pump repeats it until the signal has been taken. A thread that
// waits for a page cannot take any: what ends the program by default then ends it without being
// taken.
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dom0-daemon/hypervisor/usermode/clock.h"
#include "dom0-daemon/hypervisor/usermode/guest_thread.h"
#include "dom0-daemon/hypervisor/usermode/home.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::int64_t kLongest = 100 * 365 * 86400ll * 1'000'000'000;  // ns; 100 years is for ever
constexpr std::int64_t kPumpPeriod = 10'000'000;                        // ns between repeated kicks
// ns that threads have for taking a signal which ends the program. A thread that computes takes it
// within a kick, and what it told of its mask is then up to date.
constexpr std::int64_t kTakeLimit = 500'000'000;

enum class Default { kEnd, kIgnore, kStop };

// signal(7).
Default default_action(int signo) {
  switch (signo) {
    case SIGCHLD:
    case SIGURG:
    case SIGWINCH:
    case SIGCONT: return Default::kIgnore;
    case SIGSTOP:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU: return Default::kStop;
    default: return Default::kEnd;
  }
}

std::int64_t monotonic_ns() { return clock_ns(CLOCK_MONOTONIC); }

bool valid(int signo) { return signo >= 1 && signo <= 64; }

}  // namespace

void Home::sigaction(Reader& in, Writer& out) {
  const auto signo = in.get<std::int32_t>();
  const auto set = in.get<std::uint8_t>();
  const auto action = in.get<GuestAction>();
  if (!in.ok() || !valid(signo) || (set != 0 && (signo == SIGKILL || signo == SIGSTOP))) {
    out.put(std::int64_t{-EINVAL}).put(GuestAction{});
    return;
  }
  std::lock_guard guard(lock_);
  const GuestAction old = actions_[static_cast<std::size_t>(signo)];
  if (set != 0) actions_[static_cast<std::size_t>(signo)] = action;
  out.put(std::int64_t{0}).put(old);
}

void Home::send_signal(HomeThread& sender, Reader& in, Writer& out) {
  const auto pid = in.get<std::int32_t>();
  const auto tid = in.get<std::int32_t>();
  const auto signo = in.get<std::int32_t>();
  const auto info = in.get<siginfo_t>();
  (void)sender;
  if (!in.ok() || signo < 0 || signo > 64) {
    out.put(std::int64_t{-EINVAL});
    return;
  }
  if (pid != 0 && pid != main_tid_) {
    // Another process, or a group: the kernel decides, with the invoking user's rights. tgkill into
    // the domain's own descriptors of other processes has no meaning.
    const long result = tid != 0 ? ::syscall(SYS_tgkill, pid, tid, signo) : ::kill(pid, signo);
    out.put(static_cast<std::int64_t>(result == 0 ? 0 : -errno));
    return;
  }
  std::shared_ptr<HomeThread> target;
  if (tid != 0) {
    target = thread(tid);
    if (target == nullptr) {
      out.put(std::int64_t{-ESRCH});
      return;
    }
  }
  out.put(signo == 0 ? std::int64_t{0} : post(target.get(), signo, info));
}

// target nullptr: the process.
std::int64_t Home::post(HomeThread* target, int signo, const siginfo_t& info) {
  if (signo == SIGKILL) {
    end_by_signal({128 + SIGKILL, SIGKILL, ""});
    return 0;
  }
  {
    std::lock_guard guard(lock_);
    if (giving_) {
      kept_signals_.push_back(signo);
      return 0;
    }
    const GuestAction& action = actions_[static_cast<std::size_t>(signo)];
    const bool ignored =
        action.handler == 1 || (action.handler == 0 && default_action(signo) != Default::kEnd);
    std::uint64_t awaited = 0;
    for (const auto& [tid, thread] : threads_) awaited |= thread->waiting_for;
    if (ignored && (awaited & signal_bit(signo)) == 0) return 0;
    auto& set = target != nullptr ? target->pending : process_pending_;
    set.emplace(signo, info);
  }
  kick_pending();
  pump_.wake();
  return 0;
}

void Home::outside_signal(int signo) {
  siginfo_t info{};
  info.si_signo = signo;
  info.si_code = SI_USER;
  if (valid(signo)) post(nullptr, signo, info);
}

std::map<int, siginfo_t>::iterator Home::deliverable(std::map<int, siginfo_t>& set,
                                                     std::uint64_t mask) {
  auto next = set.begin();
  while (next != set.end() && (mask & signal_bit(next->first)) != 0) ++next;
  return next;
}

void Home::take_signal(HomeThread& thread, Reader& in, Writer& out) {
  const auto mask = in.get<std::uint64_t>();
  Services::End end;
  {
    std::lock_guard guard(lock_);
    for (;;) {
      auto* set = &thread.pending;
      auto next = deliverable(*set, mask);
      if (next == set->end()) {
        set = &process_pending_;
        next = deliverable(*set, mask);
      }
      if (next == set->end()) {
        out.put(std::int32_t{0}).put(siginfo_t{}).put(GuestAction{});
        return;
      }
      const auto [signo, info] = *next;
      set->erase(next);
      GuestAction& action = actions_[static_cast<std::size_t>(signo)];
      if (action.handler == 1) continue;
      if (action.handler == 0) {
        if (default_action(signo) != Default::kEnd) continue;
        end = {128 + signo, signo, ""};
        break;
      }
      out.put(std::int32_t{signo}).put(info).put(action);
      if ((action.flags & SA_RESETHAND) != 0) action = GuestAction{};
      return;
    }
  }
  end_by_signal(end);
}

void Home::signal_wait(HomeThread& thread, Reader& in, Writer& out) {
  const auto set = in.get<std::uint64_t>();
  const auto timeout = in.get<std::int64_t>();
  const std::int64_t deadline = timeout < 0 ? -1 : monotonic_ns() + std::min(timeout, kLongest);
  for (;;) {
    thread.parker.prepare();
    {
      std::lock_guard guard(lock_);
      if (!settled(thread) || held()) {
        thread.waiting_for = 0;
        out.put(kStartAgain).put(siginfo_t{});
        return;
      }
      thread.waiting_for = set;
      for (auto* pending : {&thread.pending, &process_pending_})
        if (const auto found = deliverable(*pending, ~set); found != pending->end()) {
          thread.waiting_for = 0;
          out.put(std::int32_t{found->first}).put(found->second);
          pending->erase(found);
          return;
        }
      // A signal outside the set with a handler interrupts the wait.
      const std::uint64_t blocked = thread.mask.load() | set;
      if (deliverable(thread.pending, blocked) != thread.pending.end()) {
        thread.waiting_for = 0;
        out.put(std::int32_t{-EINTR}).put(siginfo_t{});
        return;
      }
    }
    const std::int64_t left =
        deadline < 0 ? -1 : std::max<std::int64_t>(0, deadline - monotonic_ns());
    if (thread.parker.sleep(left) == -ETIMEDOUT) {
      std::lock_guard guard(lock_);
      thread.waiting_for = 0;
      out.put(std::int32_t{-EAGAIN}).put(siginfo_t{});
      return;
    }
  }
}

void Home::pending(HomeThread& thread, Writer& out) {
  std::uint64_t set = 0;
  std::lock_guard guard(lock_);
  for (const auto* pending : {&thread.pending, &process_pending_})
    for (const auto& [signo, info] : *pending) set |= signal_bit(signo);
  out.put(set);
}

void Home::timer(Reader& in, Writer& out) {
  const auto value = in.get<std::int64_t>();
  const auto interval = in.get<std::int64_t>();
  const auto set = in.get<std::uint8_t>();
  {
    std::lock_guard guard(lock_);
    const std::int64_t left =
        timer_due_ == 0 ? 0 : std::max<std::int64_t>(1, timer_due_ - monotonic_ns());
    out.put(left).put(timer_interval_);
    if (set == 0) return;
    timer_due_ = value > 0 ? monotonic_ns() + std::min(value, kLongest) : 0;
    timer_interval_ = std::min(interval, kLongest);
  }
  pump_.wake();
}

// Ends what it waits for here.
void Home::interrupt(HomeThread& thread) {
  thread.parker.interrupt();
  const int proxy = thread.proxy.load();
  if (proxy > 0) ::syscall(SYS_tgkill, ::getpid(), proxy, kKickSignal);
}

void Home::kick_thread(HomeThread& thread) {
  interrupt(thread);
  if (thread.host != services_.self) services_.kick(thread.host, thread.tid);
}

// Tells the threads that could take a pending signal. For the process's: the main thread first, as
// Linux does.
void Home::kick_pending() {
  std::vector<int> tids;
  {
    std::lock_guard guard(lock_);
    std::uint64_t process = 0;
    for (const auto& [signo, info] : process_pending_) process |= signal_bit(signo);
    for (const auto& [tid, thread] : threads_) {
      std::uint64_t wanted = 0;
      for (const auto& [signo, info] : thread->pending) wanted |= signal_bit(signo);
      const std::uint64_t takes = (wanted & ~thread->mask.load()) | (wanted & thread->waiting_for);
      const std::uint64_t takes_process =
          (process & ~thread->mask.load()) | (process & thread->waiting_for);
      // A thread elsewhere tells its mask with its next call only: what it blocked may be open now.
      // So does one that is here and has been elsewhere for the home before.
      const bool elsewhere = thread->host != services_.self || !thread->told.load();
      const bool unsure = elsewhere && thread->in_call.load() == 0;
      if (takes != 0 || takes_process != 0 || (unsure && (wanted | process) != 0))
        tids.push_back(tid);
      process &= ~takes_process;
    }
  }
  for (const int tid : tids)
    if (const auto found = thread(tid)) kick_thread(*found);
}

// A pending signal whose action is the end and which some thread leaves open, as far as it has
// told. 0: none. lock_ is held.
int Home::fatal_pending() {
  for (const auto& [tid, thread] : threads_) {
    const std::uint64_t held = thread->mask.load() | thread->waiting_for;
    for (const auto* pending : {&thread->pending, &process_pending_})
      for (const auto& [signo, info] : *pending)
        if ((held & signal_bit(signo)) == 0 && default_action(signo) == Default::kEnd &&
            actions_[static_cast<std::size_t>(signo)].handler == 0)
          return signo;
  }
  return 0;
}

void Home::run_pump() {
  std::int64_t fatal_since = 0;  // monotonic ns, 0: no such signal waits
  while (!retired_) {
    bool idle = false;
    std::int64_t timer_left = -1;
    int fatal = 0;
    pump_.prepare();
    if (held()) {
      pump_.sleep(kPumpPeriod);
      continue;
    }
    {
      std::lock_guard guard(lock_);
      idle = process_pending_.empty();
      for (const auto& [tid, thread] : threads_)
        idle = idle && thread->pending.empty() && settled(*thread);
      if (timer_due_ != 0) timer_left = std::max<std::int64_t>(0, timer_due_ - monotonic_ns());
      fatal = fatal_pending();
    }
    if (fatal == 0) {
      fatal_since = 0;
    } else if (fatal_since == 0) {
      fatal_since = monotonic_ns();
    } else if (monotonic_ns() - fatal_since > kTakeLimit) {
      end_by_signal({128 + fatal, fatal, ""});
    }
    std::int64_t wait = idle ? -1 : kPumpPeriod;
    if (timer_left >= 0 && (wait < 0 || timer_left < wait)) wait = timer_left;
    pump_.sleep(wait < 0 ? 1'000'000'000 : wait);
    bool due = false;
    {
      std::lock_guard guard(lock_);
      if (timer_due_ != 0 && monotonic_ns() >= timer_due_ && !held()) {
        due = true;
        timer_due_ = timer_interval_ > 0 ? monotonic_ns() + timer_interval_ : 0;
      }
    }
    if (due) {
      siginfo_t info{};
      info.si_signo = SIGALRM;
      info.si_code = SI_KERNEL;
      post(nullptr, SIGALRM, info);
    } else {
      kick_pending();
      call_away_unsettled();
    }
  }
}

std::string Home::crash_text(const HomeThread& thread, const FaultReport& report) {
  std::string place;
  {
    std::lock_guard guard(layout_lock_);
    place = symbols_.describe(space_, report.pc);
  }
  const char* name = sigabbrev_np(report.signo);  // real-time signals have none
  if (name == nullptr) name = "RT";
  char text[256];
  std::snprintf(text, sizeof text,
                "guest crashed: SIG%s on host %s, vCPU %u (thread %d), pc 0x%llx (", name,
                services_.hosts[thread.host].c_str(), thread.vcpu.load(), thread.tid,
                static_cast<unsigned long long>(report.pc));
  std::string all = text + place + ")";
  if (report.signo == SIGABRT) return all;
  std::snprintf(text, sizeof text, ", address 0x%llx",
                static_cast<unsigned long long>(report.address));
  return all + text;
}

// A synchronous signal: the guest's handler, or the end with a report.
void Home::fault(HomeThread& thread, Reader& in, Writer& out) {
  const auto report = in.get<FaultReport>();
  if (!in.ok() || !valid(report.signo)) {
    out.put(GuestAction{});
    return;
  }
  {
    std::lock_guard guard(lock_);
    GuestAction& action = actions_[static_cast<std::size_t>(report.signo)];
    const bool blocked = (thread.mask.load() & signal_bit(report.signo)) != 0;
    if (action.handler > 1 && !blocked) {
      out.put(action);
      if ((action.flags & SA_RESETHAND) != 0) action = GuestAction{};
      return;
    }
  }
  end_by_signal({128 + report.signo, report.signo, crash_text(thread, report)});
}

}  // namespace xenspan::hypervisor::usermode
