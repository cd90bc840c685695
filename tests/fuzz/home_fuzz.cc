// dom0-daemon/hypervisor/usermode/home.h: what a remote slice's threads ask of the home, frame
// after frame. Every answer has the size that home_ops.h promises, for a request of any length, and
// the domain ends only by a call that ends it.
//
// Left out here: packed system calls (calls_fuzz.cc), mmap and its family (layout_fuzz.cc), execve
// (elf_fuzz.cc) and lines for the user's terminal. Signals go to the domain only, waits are short.
// How a domain ends (home_end.cc: threads that outlive every call) is replaced by a way out.
//
// Input: frames of which thread, op, length, payload.
#include <cstdlib>
#include <memory>

#include "dom0-daemon/hypervisor/usermode/home.h"
#include "dom0-daemon/hypervisor/usermode/thread_state.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/demand.h"

namespace xenspan::hypervisor::usermode {

void Home::park_for_ever() { std::abort(); }
void Home::finish(const Services::End& end) {
  services_.end(end);
  park_for_ever();
}
void Home::end_by_signal(const Services::End& end) { services_.end(end); }

namespace {

struct Ended {};

Home::Services services() {
  static LayoutTable layout;
  Home::Services services;
  services.layout = &layout;
  static VcpuPlaces places({{0, 0}, {1, 0}});
  services.places = &places;
  services.hosts = {"a", "b"};
  services.memory = 1 << 30;
  services.start_thread = [](dsm::HostId, const StartThread&) { return 0; };
  services.forbid = [](dsm::HostId, std::uint64_t, const Range&) {};
  services.kick = services.call_away = [](dsm::HostId, int) {};
  services.take_back_lease = [](dsm::HostId, std::uint64_t, std::uint64_t) {};
  services.take_over = [](dsm::HostId, const Packet& state) {
    return check_thread_state(state) ? 0 : -EINVAL;
  };
  // The real one stops the process; here it is the way out of a call that never returns.
  services.end = [](const Home::Services::End& end) {
    DEMAND(end.status >= 0 && end.status <= 255 && end.signo >= 0 && end.signo <= 64);
    throw Ended{};
  };
  return services;
}

// Bytes of the answer, or 0 where the call ends the domain or nothing is answered.
std::size_t answer_bytes(Op op) {
  switch (op) {
    case Op::kClock: return 8 + 8 + 4 + sizeof(BootId) + 8 + 8;
    case Op::kFutexCancel: return 1;
    case Op::kFutexEnqueue:
    case Op::kFutexSleep:
    case Op::kClone:
    case Op::kSendSignal:
    case Op::kPending: return 8;
    case Op::kFutexRequeue:
    case Op::kFutexWake:
    case Op::kTimer: return 16;
    case Op::kLayout: return 8 + 8 + 8 + 4;
    case Op::kReserveTid: return 4;
    case Op::kSigaction: return 8 + sizeof(GuestAction);
    case Op::kTakeSignal: return 4 + sizeof(siginfo_t) + sizeof(GuestAction);
    case Op::kSignalWait: return 4 + sizeof(siginfo_t);
    case Op::kFault: return sizeof(GuestAction);
    case Op::kAffinity: return 8 + 128 + 1;
    case Op::kMove: return 8 + 4;
    default: return 0;
  }
}

template <typename T>
void change(Packet& request, std::size_t at, T (*to)(T)) {
  if (request.size() < at + sizeof(T)) return;
  T value;
  std::memcpy(&value, request.data() + at, sizeof value);
  value = to(value);
  std::memcpy(request.data() + at, &value, sizeof value);
}

// Keeps a request from reaching other processes and from waiting for long.
void tame(Op op, Packet& request) {
  if (op == Op::kSendSignal) change<std::int32_t>(request, 0, [](std::int32_t) { return 0; });
  if (op == Op::kFutexSleep || op == Op::kSignalWait)
    change<std::int64_t>(request, 8, [](std::int64_t ns) { return ns & 0xff; });
}

class Domain {
 public:
  Domain() : home_(services()) {
    // Two threads, the second one remote.
    for (auto& thread : threads_) thread = start();
  }

  // False when the domain is over.
  bool serve(fuzz::Bytes& in) {
    auto& thread = threads_[in.take<std::uint8_t>() % threads_.size()];
    const auto op = static_cast<Op>(in.take<std::uint8_t>() % 26);
    Packet request = in.take_bytes(in.take<std::uint8_t>()), answer;
    if (op == Op::kIo || op == Op::kMemory || op == Op::kRefuse || op == Op::kExec ||
        thread == nullptr)
      return true;
    tame(op, request);
    // Would wait for ever for a wake that cannot come.
    if ((op == Op::kFutexSleep || op == Op::kSignalWait) && request.size() < 16) return true;
    try {
      home_.serve(*thread, op, request, answer);
    } catch (const Ended&) {
      DEMAND(op == Op::kExitGroup || op == Op::kFault || op == Op::kTakeSignal ||
             op == Op::kThreadExit || op == Op::kSendSignal);
      return false;
    }
    DEMAND(answer.size() == answer_bytes(op));
    if (op == Op::kThreadExit) thread = nullptr;
    return true;
  }

 private:
  std::shared_ptr<HomeThread> start() {
    HomeThread nobody;
    Packet request, answer;
    home_.serve(nobody, Op::kReserveTid, request, answer);
    CloneRequest clone{};
    clone.tid = Reader(answer).get<std::int32_t>();
    Writer(request).put(clone);
    home_.serve(nobody, Op::kClone, request, answer);
    auto thread = home_.thread(clone.tid);
    DEMAND(thread != nullptr);
    return thread;
  }

  Home home_;
  std::array<std::shared_ptr<HomeThread>, 2> threads_;
};

}  // namespace
}  // namespace xenspan::hypervisor::usermode

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  xenspan::fuzz::Bytes in(data, size);
  xenspan::hypervisor::usermode::Domain domain;
  while (in.left() > 0 && domain.serve(in)) {
  }
  return 0;
}
