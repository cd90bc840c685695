// The home's role moves: all that it keeps goes out as one value, and another home begins with it
// (home_state.h).
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "dom0-daemon/hypervisor/usermode/clock.h"
#include "dom0-daemon/hypervisor/usermode/home.h"
#include "dom0-daemon/hypervisor/usermode/home_state.h"

namespace xenspan::hypervisor::usermode {
namespace {

std::vector<siginfo_t> infos(const std::map<int, siginfo_t>& set) {
  std::vector<siginfo_t> list;
  for (const auto& [signo, info] : set) {
    list.push_back(info);
    list.back().si_signo = signo;
  }
  return list;
}

std::map<int, siginfo_t> set_of(const std::vector<siginfo_t>& list) {
  std::map<int, siginfo_t> set;
  for (const siginfo_t& info : list) set.emplace(info.si_signo, info);
  return set;
}

std::string working_directory() {
  char text[PATH_MAX];
  return ::getcwd(text, sizeof text) != nullptr ? text : "/";
}

}  // namespace

HomeState Home::state() {
  HomeState state;
  const OpenFiles open = look_at_open_files(services_.descriptor_limit);
  state.files = open.files;
  state.cwd = working_directory();
  state.umask = ::umask(0);
  ::umask(state.umask);
  {
    std::lock_guard guard(layout_lock_);
    state.layout = space_.state();
    state.layout_version = layout_version_;
    state.known_by.assign(known_by_.begin(), known_by_.end());
    std::sort(state.known_by.begin(), state.known_by.end());
    for (const auto& [id, file] : backings_) state.backings.emplace_back(id, look_at(file.get()));
    state.program = program_;
    state.auxv = auxv_;
  }
  std::lock_guard guard(lock_);
  state.pid = main_tid_;
  state.next_tid = next_tid_;
  for (const auto& [tid, thread] : threads_) {
    HomeState::Thread out;
    out.tid = tid;
    out.vcpu = thread->vcpu;
    out.told_vcpu = thread->told_vcpu;
    out.host = thread->host;
    out.core = thread->core;
    out.mask = thread->mask;
    out.futex_count = thread->futex_count;
    out.woken = thread->parker.woken();
    out.affinity = thread->affinity;
    out.pending = infos(thread->pending);
    state.threads.push_back(std::move(out));
  }
  state.waiters = futexes_.all();
  state.leases = futex_leases_.state();
  state.actions = actions_;
  state.pending = infos(process_pending_);
  if (timer_due_ != 0)
    state.timer_left = std::max<std::int64_t>(1, timer_due_ - clock_ns(CLOCK_MONOTONIC));
  state.timer_interval = timer_interval_;
  return state;
}

Status Home::take(const HomeState& state) {
  // What may be refused comes first.
  if (!threads().empty()) return Error{EBUSY, "this home has a domain already"};
  std::map<int, UniqueFd> backings;
  for (const auto& [id, file] : state.backings) {
    auto opened = open_again(file);
    if (!opened) return opened.error();
    // Above the guest's descriptors, as map_call() has them.
    UniqueFd high(::fcntl(opened->get(), F_DUPFD_CLOEXEC, services_.descriptor_limit));
    if (!high) return system_error(errno, "cannot keep " + file.path);
    backings.emplace(id, std::move(high));
  }
  std::lock_guard layout(layout_lock_);
  AddressSpace space(services_.memory);
  if (!space.take(state.layout)) return Error{EBADMSG, "the home's layout is malformed"};
  space_ = std::move(space);
  layout_version_ = state.layout_version;
  known_by_.clear();
  known_by_.insert(state.known_by.begin(), state.known_by.end());
  next_backing_ = backings.empty() ? 0 : backings.rbegin()->first + 1;
  backings_ = std::move(backings);
  program_ = state.program;
  auxv_ = state.auxv;
  main_tid_ = state.pid;
  make_files();
  std::lock_guard guard(lock_);
  next_tid_ = state.next_tid;
  for (const HomeState::Thread& in : state.threads) {
    auto thread = std::make_shared<HomeThread>();
    thread->tid = in.tid;
    thread->vcpu = in.vcpu;
    thread->told_vcpu = in.told_vcpu;
    thread->host = in.host;
    thread->core = in.core;
    thread->mask = in.mask;
    thread->told = false;
    thread->futex_count = in.futex_count;
    if (in.woken != 0) thread->parker.wake();
    thread->affinity = in.affinity;
    thread->pending = set_of(in.pending);
    threads_.emplace(in.tid, std::move(thread));
  }
  for (const FutexTable::Waiter& waiter : state.waiters)
    futexes_.enqueue(waiter.address, waiter.bitset, waiter.ticket);
  FutexLeases::State leases = state.leases;
  for (auto& [address, holders] : leases.holders)
    holders &= static_cast<dsm::HostMask>(~dsm::mask_of(services_.self));
  futex_leases_.take(leases);
  actions_ = state.actions;
  process_pending_ = set_of(state.pending);
  timer_due_ = state.timer_left > 0 ? clock_ns(CLOCK_MONOTONIC) + state.timer_left : 0;
  timer_interval_ = state.timer_interval;
  return {};
}

}  // namespace xenspan::hypervisor::usermode
