#include "dom0-daemon/hypervisor/usermode/home.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "dom0-daemon/hypervisor/usermode/clock.h"

namespace xenspan::hypervisor::usermode {

BootId boot_id() {
  BootId id{};
  std::ifstream("/proc/sys/kernel/random/boot_id").read(id.data(), id.size());
  return id;
}

Home::Home(Services services) : services_(std::move(services)), space_(services_.memory) {
  main_tid_ = ::getpid();
  next_tid_ = main_tid_ + 1;
}

Home::~Home() = default;

std::shared_ptr<HomeThread> Home::thread(int tid) {
  std::lock_guard guard(lock_);
  const auto found = threads_.find(tid);
  return found == threads_.end() ? nullptr : found->second;
}

std::vector<Home::ThreadInfo> Home::threads() {
  std::lock_guard guard(lock_);
  std::vector<ThreadInfo> all;
  for (const auto& [tid, thread] : threads_)
    all.push_back({tid, thread->vcpu.load(), thread->host.load(),
                   thread->in_call.load() != 0 ? "home call" : "running"});
  return all;
}

void Home::serve(HomeThread& thread, Op op, const Packet& request, Packet& answer) {
  if (ending_.load(std::memory_order_acquire)) park_for_ever();
  calls_.fetch_add(1, std::memory_order_relaxed);
  thread.in_call.store(1, std::memory_order_release);
  if (op == Op::kIo) {
    usermode::execute({files_.get(), services_.descriptor_limit, main_tid_}, request, answer);
    thread.in_call.store(0, std::memory_order_release);
    if (ending_.load(std::memory_order_acquire)) park_for_ever();
    return;
  }
  Reader in(request);
  Writer out(answer);
  switch (op) {
    case Op::kClock:
      out.put(clock_ns(CLOCK_MONOTONIC) + services_.monotonic_offset)
          .put(clock_ns(CLOCK_REALTIME) + services_.realtime_offset)
          .put(std::int32_t{main_tid_})
          .put(boot_id())
          .put(services_.monotonic_offset)
          .put(services_.realtime_offset);
      break;
    case Op::kFutexEnqueue: futex_enqueue(thread, in, out); break;
    case Op::kFutexCancel: futex_cancel(in, out); break;
    case Op::kFutexSleep: futex_sleep(thread, in, out); break;
    case Op::kFutexWake: futex_wake(thread, in, out); break;
    case Op::kFutexRequeue: futex_requeue(in, out); break;
    case Op::kMemory: {
      const auto number = in.get<std::int64_t>();
      const auto args = in.get<std::array<std::uint64_t, 6>>();
      out.put(in.ok() ? memory_call(number, args) : std::int64_t{-EINVAL});
      break;
    }
    case Op::kLayout: layout_query(thread, in.get<std::uint64_t>(), answer); break;
    case Op::kReserveTid: out.put(next_tid_.fetch_add(1)); break;
    case Op::kClone: {
      const auto clone_request = in.get<CloneRequest>();
      out.put(in.ok() ? clone(thread, clone_request) : std::int64_t{-EINVAL});
      break;
    }
    case Op::kThreadExit: thread_exit(thread); return;  // `thread` is gone
    case Op::kMove:
      if (move(thread, request, answer)) return;  // it runs elsewhere now
      break;
    case Op::kExec: exec(thread, in, out); break;
    case Op::kExitGroup: {
      Services::End end;
      end.status = in.get<std::int32_t>() & 0xff;
      finish(end);
    }
    case Op::kSigaction: sigaction(in, out); break;
    case Op::kSendSignal: send_signal(thread, in, out); break;
    case Op::kTakeSignal: take_signal(thread, in, out); break;
    case Op::kSignalWait: signal_wait(thread, in, out); break;
    case Op::kPending: pending(thread, out); break;
    case Op::kTimer: timer(in, out); break;
    case Op::kFault: fault(thread, in, out); break;
    case Op::kAffinity: affinity(thread, in, out); break;
    case Op::kRefuse: {
      // A remote slice's words: nothing in them may steer the user's terminal.
      std::string text = "xenspan: " + in.rest().substr(0, 400) + "\n";
      std::replace_if(
          text.begin(), text.end() - 1,
          [](unsigned char letter) { return letter < 0x20 || letter == 0x7f; }, '?');
      [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
      break;
    }
    default: break;  // an op this home does not know: empty answer, the caller reads zeros
  }
  thread.in_call.store(0, std::memory_order_release);
  if (ending_.load(std::memory_order_acquire)) park_for_ever();
}

std::vector<std::string> Home::names(const std::vector<std::uint64_t>& bytes) {
  std::lock_guard guard(layout_lock_);
  std::vector<std::string> all;
  for (const std::uint64_t byte : bytes) {
    if (byte >> dsm::kPageShift >= kWindowPages) {
      all.push_back("outside the window");
      continue;
    }
    const std::uint64_t address = kWindowStart + byte;
    // A page that was faulted on was mapped once, however long ago.
    const bool forgotten = space_.find(address) == nullptr && space_.find_freed(address) == nullptr;
    all.push_back(forgotten ? "freed" : symbols_.describe(space_, address));
  }
  return all;
}

}  // namespace xenspan::hypervisor::usermode
