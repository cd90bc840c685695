// Threads go to other hosts: because their vCPU is placed anew, or because they chose another vCPU
// (sched_setaffinity(2)).
//
// The home says where a thread belongs (its vCPU, and that vCPU's place) and knows where it is; a
// thread of which the two differ is unsettled and is called away until it asks (Op::kMove) and is
// sent on. A call comes too early or too late as a kick does (home_signals.cc), so it is repeated:
// by migrate() while somebody waits, else by the pump.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "dom0-daemon/hypervisor/usermode/clock.h"
#include "dom0-daemon/hypervisor/usermode/home.h"
#include "dom0-daemon/hypervisor/usermode/thread_state.h"

namespace xenspan::hypervisor::usermode {
namespace {

using std::chrono::microseconds;

constexpr std::int64_t kMoveLimit = 5'000'000'000;  // ns that migrate() waits for threads in calls
// Between two calls: soon at first, because the first one may have met the thread on its way
// between guest and runtime; rarely when the thread is in a call that nothing interrupts.
constexpr microseconds kSoon{300}, kLater{1000}, kRarely{10000};
constexpr std::int64_t kSoonUntil = 3'000'000, kLaterUntil = 100'000'000;  // ns

}  // namespace

// Whether the thread is where it belongs. lock_ is held.
bool Home::settled(const HomeThread& thread) const {
  const unsigned vcpu = thread.vcpu;
  return thread.told_vcpu == vcpu &&
         services_.places->at(vcpu) == VcpuPlace{thread.host, thread.core};
}

// A thread asks where to be. true: it runs elsewhere now, and `thread` is that one's.
bool Home::move(HomeThread& thread, const Packet& request, Packet& answer) {
  Writer out(answer);
  Packet state = request;
  auto fixed = Reader(state).get<ThreadState>();
  unsigned vcpu = 0;
  VcpuPlace from, to;
  unsigned told_before = 0;
  const int proxy = thread.proxy.load();
  {
    std::lock_guard guard(lock_);
    vcpu = thread.vcpu;
    from = {thread.host, thread.core};
    to = services_.places->at(vcpu);
    if (state.size() < sizeof fixed || fixed.tid != thread.tid) {
      thread.move_error = EINVAL;
      out.put(std::int64_t{-EINVAL}).put(std::uint32_t{thread.told_vcpu});
      settling_.notify_all();
      return false;
    }
    if (to.host == from.host) {
      thread.core = to.core;
      thread.told_vcpu = vcpu;
      out.put(std::int64_t{1}).put(std::uint32_t{vcpu});
      settling_.notify_all();
      return false;
    }
    // From here on signals for it go to the other host. It may run there, and ask for something
    // else, before this call goes on: then all that is known of it is the other call's.
    told_before = thread.told_vcpu;
    thread.told_vcpu = vcpu;
    thread.move_error = 0;
    thread.host = to.host;
    thread.core = to.core;
    thread.proxy = 0;
    thread.in_call = 0;
  }
  fixed.vcpu = vcpu;
  std::memcpy(state.data(), &fixed, sizeof fixed);
  const int error = services_.take_over(to.host, state);
  std::lock_guard guard(lock_);
  if (error != 0) {
    thread.host = from.host;
    thread.core = from.core;
    thread.proxy = proxy;
    // A vCPU that was placed anew meanwhile: the thread is called again. One that chose another
    // vCPU and cannot go there stays with the one it has.
    if (error != -ESTALE) {
      thread.move_error = -error;
      thread.vcpu = thread.told_vcpu = told_before;
    }
    out.put(std::int64_t{error}).put(std::uint32_t{thread.told_vcpu});
  } else {
    out.put(std::int64_t{0}).put(std::uint32_t{vcpu});
  }
  settling_.notify_all();
  return error == 0;
}

void Home::call_away(HomeThread& thread) {
  services_.call_away(thread.host, thread.tid);
  interrupt(thread);
}

void Home::call_away_unsettled() {
  std::vector<std::shared_ptr<HomeThread>> away;
  {
    std::lock_guard guard(lock_);
    for (const auto& [tid, thread] : threads_)
      if (!settled(*thread)) away.push_back(thread);
  }
  for (const auto& thread : away) call_away(*thread);
}

// The other slices first: whoever is sent to one finds that it knows.
void Home::place(unsigned vcpu, VcpuPlace to) {
  services_.place(vcpu, to);
  std::lock_guard guard(lock_);
  services_.places->set(vcpu, to);
  for (const auto& [tid, thread] : threads_)
    if (thread->vcpu == vcpu) thread->move_error = 0;
}

Result<Home::Moved> Home::await_settled(unsigned vcpu) {
  const std::int64_t began = clock_ns(CLOCK_MONOTONIC);
  Moved moved;
  for (;;) {
    std::vector<std::shared_ptr<HomeThread>> away;
    unsigned threads = 0;
    {
      std::lock_guard guard(lock_);
      for (const auto& [tid, thread] : threads_) {
        if (thread->vcpu != vcpu) continue;
        ++threads;
        if (settled(*thread)) continue;
        if (thread->move_error != 0)
          return system_error(thread->move_error,
                              "thread " + std::to_string(tid) + " cannot go to host " +
                                  services_.hosts[services_.places->at(vcpu).host]);
        away.push_back(thread);
      }
    }
    moved.threads = threads;
    moved.waiting = static_cast<unsigned>(away.size());
    moved.ns = clock_ns(CLOCK_MONOTONIC) - began;
    if (ending_) return Error{ESRCH, "the domain has ended"};
    if (away.empty() || moved.ns > kMoveLimit) return moved;
    for (const auto& thread : away) call_away(*thread);
    std::unique_lock guard(lock_);
    const auto arrived = [&] {
      return std::all_of(away.begin(), away.end(), [this](const auto& thread) {
        return settled(*thread) || thread->move_error != 0 || !threads_.contains(thread->tid);
      });
    };
    settling_.wait_for(guard,
                       moved.ns < kSoonUntil    ? kSoon
                       : moved.ns < kLaterUntil ? kLater
                                                : kRarely,
                       arrived);
  }
}

Result<Home::Moved> Home::migrate(unsigned vcpu, VcpuPlace to) {
  if (vcpu >= services_.places->size() || to.host >= services_.hosts.size() ||
      services_.hosts[to.host].empty())
    return Error{EINVAL, "no such vCPU or host"};
  VcpuPlace from;
  {
    std::lock_guard guard(placing_);
    from = services_.places->at(vcpu);
    place(vcpu, to);
  }
  auto moved = await_settled(vcpu);
  if (moved || moved.error().code == ESRCH) return moved;
  {
    std::lock_guard guard(placing_);
    // Unless somebody else has placed it meanwhile.
    if (services_.places->at(vcpu) == to) place(vcpu, from);
  }
  const Result<Moved> back = await_settled(vcpu);
  return back ? moved : back;
}

}  // namespace xenspan::hypervisor::usermode
