#include "dom0-daemon/hypervisor/usermode/guest_thread.h"

#include <linux/prctl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "dom0-daemon/hypervisor/usermode/runtime_signals.h"
#include "dom0-daemon/hypervisor/usermode/slice.h"
#include "dom0-daemon/hypervisor/usermode/window.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::size_t kSignalStackBytes =
    512 << 10;  // the runtime's whole life inside the guest happens on it
constexpr std::size_t kHostStackBytes = 256 << 10;

const char* words_for(Op op) {
  switch (op) {
    case Op::kIo: return "input or output";
    case Op::kFutexSleep: return "a wait for another thread";
    case Op::kMemory: return "a change of its memory";
    case Op::kSignalWait: return "a wait for a signal";
    case Op::kClone: return "the start of a thread";
    case Op::kExec: return "the start of a program";
    case Op::kExitGroup: return "the program's end";
    case Op::kMove: return "a move to another host";
    default: return "a short call";
  }
}

}  // namespace

int GuestThread::start(Slice& slice, const StartThread& start) {
  return launch(std::unique_ptr<GuestThread>(new GuestThread(slice, start)));
}

int GuestThread::launch(std::unique_ptr<GuestThread> thread) {
  GuestThread* raw = thread.get();
  Slice& slice = raw->slice_;
  const int tid = raw->tid();
  raw->signal_stack_ = ::mmap(nullptr, kSignalStackBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (raw->signal_stack_ == MAP_FAILED) return -EAGAIN;
  slice.add(std::move(thread));
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  ::pthread_attr_setstacksize(&attributes, kHostStackBytes);
  int error = 0;
  {
    const SignalsHeld held;
    error = ::pthread_create(&raw->kernel_thread_, &attributes, &GuestThread::body, raw);
  }
  ::pthread_attr_destroy(&attributes);
  if (error != 0) slice.remove(tid);
  return -error;
}

GuestThread::~GuestThread() {
  if (signal_stack_ != nullptr && signal_stack_ != MAP_FAILED)
    ::munmap(signal_stack_, kSignalStackBytes);
}

void* GuestThread::body(void* self) {
  auto* thread = static_cast<GuestThread*>(self);
  thread->run();
  Slice& slice = thread->slice_;
  ::prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0);
  stack_t none{};
  none.ss_flags = SS_DISABLE;
  ::sigaltstack(&none, nullptr);
  leave_thread_block();
  // One that has gone may be back already, as another.
  if (thread->gone_)
    delete thread;
  else
    slice.remove(thread->tid());
  return nullptr;
}

void GuestThread::run() {
  kernel_tid_ = ::gettid();
  const sched_param ordinary{};
  ::sched_setscheduler(0, SCHED_OTHER, &ordinary);  // the creator may be a real-time service thread
  keep_to_core();
  stack_t stack{};
  stack.ss_sp = signal_stack_;
  stack.ss_size = kSignalStackBytes;
  ::sigaltstack(&stack, nullptr);
  block_.thread = this;
  enter_thread_block(block_);
  {
    const InCall call(slice_.gate());
    connect();
  }
  const auto restorer = reinterpret_cast<std::uint64_t>(xs_restorer_start);
  if (::prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, restorer,
              static_cast<std::uint64_t>(xs_restorer_end - xs_restorer_start),
              &block_.selector) != 0) {
    slice_.stop(
        "this kernel has no Syscall User Dispatch: use Linux 5.11 or newer with "
        "CONFIG_GENERIC_ENTRY");
    park();
  }
  if (!arrival_.empty()) {
    // The state is loaded by the first signal handler, into its frame: see on_syscall().
    StartRegisters at_door{};
    at_door.rip = reinterpret_cast<std::uint64_t>(xs_arrive);
    at_door.mxcsr = 0x1f80;
    at_door.fcw = 0x37f;
    xs_enter_guest(&at_door);
    slice_.give_back(std::move(line_), line_role_);
    return;
  }
  mask_ = start_.clone.signal_mask;
  guest_fs = start_.clone.registers.fs;
  const auto id = static_cast<std::uint32_t>(tid());
  if ((start_.clone.flags & CLONE_CHILD_SETTID) != 0)
    xs_guest_store32(reinterpret_cast<void*>(start_.clone.child_tid), id);
  if ((start_.clone.flags & CLONE_CHILD_CLEARTID) == 0) start_.clone.child_tid = 0;
  xs_enter_guest(&start_.clone.registers);
  slice_.give_back(std::move(line_), line_role_);
}

void GuestThread::keep_to_core() {
  cpu_set_t core;
  CPU_ZERO(&core);
  CPU_SET(slice_.places().at(start_.vcpu).core, &core);
  ::sched_setaffinity(0, sizeof core, &core);
  // A core that went away leaves the thread where the host's other threads may run: slower, not
  // wrong.
}

void GuestThread::kick() {
  if (const int id = kernel_tid_.load(); id != 0)
    ::syscall(SYS_tgkill, ::getpid(), id, kKickSignal);
}

bool GuestThread::read(void* to, std::uint64_t address, std::size_t bytes) noexcept {
  if (bytes == 0) return true;
  if (!in_window(address) || bytes > kWindowEnd - address) return false;
  return xs_guest_copy(to, reinterpret_cast<const void*>(address), bytes) == 0;
}

bool GuestThread::write(std::uint64_t address, const void* from, std::size_t bytes) noexcept {
  if (bytes == 0) return true;
  if (!in_window(address) || bytes > kWindowEnd - address) return false;
  return xs_guest_copy(reinterpret_cast<void*>(address), from, bytes) == 0;
}

bool GuestThread::read_string(std::string& to, std::uint64_t address, std::size_t limit) {
  to.clear();
  char part[256];
  while (to.size() <= limit) {
    // Never across a page: the string may end just before one that is not there.
    const std::size_t room =
        std::min<std::size_t>(sizeof part, dsm::kPageSize - address % dsm::kPageSize);
    if (!read(part, address, room)) return false;
    const std::size_t length = ::strnlen(part, room);
    to.append(part, length);
    if (length < room) return to.size() <= limit;
    address += room;
  }
  return false;
}

void GuestThread::ask(Op op, const Packet& request, Packet& answer) {
  const InCall call(slice_.gate());
  asking_.store(words_for(op), std::memory_order_relaxed);
  if (line_role_ != slice_.role()) connect();  // the home is elsewhere now
  if (!line_->call(op, mask_, request, answer)) park();
  asking_.store(nullptr, std::memory_order_relaxed);
}

// While this thread is in a call: the home does not move meanwhile.
void GuestThread::connect() {
  line_.reset();
  line_role_ = slice_.role();
  line_ = slice_.take_line(tid());
  if (line_ == nullptr) park();
}

void GuestThread::park() {
  // The domain has stopped or the home is gone: the worker ends this process. Nothing the guest
  // does counts any more.
  for (;;) ::pause();
}

void GuestThread::forget_child_tid() {
  if (start_.clone.child_tid == 0) return;
  if (in_window(start_.clone.child_tid) &&
      xs_guest_store32(reinterpret_cast<void*>(start_.clone.child_tid), 0) == 0)
    futex_wake(start_.clone.child_tid, 1, ~0U);
}

// A robust mutex whose owner ends is marked and its next waiter woken (get_robust_list(2), struct
// robust_list_head).
void GuestThread::release_robust_list() {
  struct Head {
    std::uint64_t next, offset, pending;
  } head{};
  constexpr std::uint32_t kOwnerDied = 0x40000000, kWaiters = 0x80000000, kTidMask = 0x3fffffff;
  if (robust_list_ == 0 || !read(&head, robust_list_, sizeof head)) return;
  std::uint64_t entry = head.next;
  for (int limit = 2048; limit > 0 && entry != robust_list_; --limit) {
    const std::uint64_t word = (entry & ~std::uint64_t{1}) + head.offset;
    std::uint32_t value = 0;
    if (in_window(word) && xs_guest_load32(reinterpret_cast<void*>(word), &value) == 0 &&
        (value & kTidMask) == static_cast<std::uint32_t>(tid())) {
      std::uint32_t expected = value;
      xs_guest_compare_exchange32(reinterpret_cast<void*>(word), &expected,
                                  (value & kWaiters) | kOwnerDied);
      if ((value & kWaiters) != 0) futex_wake(word, 1, ~0U);
    }
    if (!read(&entry, entry & ~std::uint64_t{1}, sizeof entry)) return;
  }
}

void GuestThread::leave(bool ask_home) {
  if (ask_home) {
    release_robust_list();
    forget_child_tid();
    request_.clear();
    ask(Op::kThreadExit, request_, answer_);
  }
  xs_leave_guest();
}

}  // namespace xenspan::hypervisor::usermode
