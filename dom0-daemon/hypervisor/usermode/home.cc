#include "dom0-daemon/hypervisor/usermode/home.h"

#include <sys/auxv.h>
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

Result<StartThread> Home::load(const std::string& program, std::vector<std::string> arguments,
                               std::vector<std::string> environment) {
  program_.path = program;
  program_.arguments = std::move(arguments);
  program_.environment = std::move(environment);
  program_.uid = ::getuid();
  program_.gid = ::getgid();
  program_.hwcap = ::getauxval(AT_HWCAP);
  program_.hwcap2 = ::getauxval(AT_HWCAP2);
  auto followed = follow_scripts(std::move(program_));
  if (!followed) return followed.error();
  program_ = std::move(*followed);
  std::lock_guard guard(layout_lock_);
  const auto write = [this](std::uint64_t address, const void* from, std::size_t bytes) {
    // The engine has to know which frames were touched, so that a later munmap empties them.
    const dsm::Gfn first = gfn_of(address);
    services_.engine->acquire_range(first, gfn_of(address + bytes - 1) - first + 1,
                                    dsm::Right::kExclusive);
    std::memcpy(services_.view->frames() + (address - kWindowStart), from, bytes);
  };
  auto entry = usermode::load(program_, space_, write);
  if (!entry) return entry.error();
  space_.set_brk_start(entry->brk_start);

  ProcFiles::Sources sources;
  sources.vcpus = static_cast<unsigned>(services_.vcpus.size());
  sources.memory = services_.memory;
  sources.program = program_.path;
  sources.arguments = program_.arguments;
  sources.environment = program_.environment;
  sources.auxv = entry->auxv;
  sources.pid = ::getpid();
  sources.directory = services_.directory;
  sources.maps = [this] {
    std::lock_guard layout(layout_lock_);
    return space_.maps();
  };
  sources.threads = [this] {
    std::vector<int> tids;
    for (const auto& thread : threads()) tids.push_back(thread.tid);
    return tids;
  };
  files_ = std::make_unique<ProcFiles>(std::move(sources));

  auto main_thread = std::make_shared<HomeThread>();
  main_thread->tid = main_tid_;
  main_thread->host = services_.vcpus[0].host;
  threads_.emplace(main_tid_, std::move(main_thread));

  StartThread start{};
  start.clone.tid = main_tid_;
  start.clone.registers.rip = entry->pc;
  start.clone.registers.rsp = entry->sp;
  start.clone.registers.mxcsr = 0x1f80;  // what the kernel gives a new program
  start.clone.registers.fcw = 0x37f;
  return start;
}

std::shared_ptr<HomeThread> Home::thread(int tid) {
  std::lock_guard guard(lock_);
  const auto found = threads_.find(tid);
  return found == threads_.end() ? nullptr : found->second;
}

std::vector<Home::ThreadInfo> Home::threads() {
  std::lock_guard guard(lock_);
  std::vector<ThreadInfo> all;
  for (const auto& [tid, thread] : threads_)
    all.push_back(
        {tid, thread->vcpu, thread->host, thread->in_call.load() != 0 ? "home call" : "running"});
  return all;
}

void Home::serve(HomeThread& thread, Op op, const Packet& request, Packet& answer) {
  if (ending_.load(std::memory_order_acquire)) park_for_ever();
  calls_.fetch_add(1, std::memory_order_relaxed);
  thread.in_call.store(1, std::memory_order_release);
  if (op == Op::kIo) {
    usermode::execute({files_.get(), services_.descriptor_limit}, request, answer);
    thread.in_call.store(0, std::memory_order_release);
    if (ending_.load(std::memory_order_acquire)) park_for_ever();
    return;
  }
  Reader in(request);
  Writer out(answer);
  switch (op) {
    case Op::kClock:
      out.put(clock_ns(CLOCK_MONOTONIC))
          .put(clock_ns(CLOCK_REALTIME))
          .put(std::int32_t{main_tid_})
          .put(boot_id());
      break;
    case Op::kFutexEnqueue: futex_enqueue(thread, in, out); break;
    case Op::kFutexCancel: futex_cancel(in, out); break;
    case Op::kFutexSleep: futex_sleep(thread, in, out); break;
    case Op::kFutexWake: futex_wake(in, out); break;
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
      const std::string text = "xenspan: " + in.rest().substr(0, 400) + "\n";
      [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
      break;
    }
    default: break;  // an op this home does not know: empty answer, the caller reads zeros
  }
  thread.in_call.store(0, std::memory_order_release);
  if (ending_.load(std::memory_order_acquire)) park_for_ever();
}

std::vector<std::string> Home::names(const std::vector<dsm::Gfn>& gfns) {
  std::lock_guard guard(layout_lock_);
  std::vector<std::string> all;
  for (const dsm::Gfn gfn : gfns)
    all.push_back(gfn < kWindowPages ? symbols_.describe(space_, address_of(gfn))
                                     : "outside the window");
  return all;
}

}  // namespace xenspan::hypervisor::usermode
