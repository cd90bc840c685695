// One guest thread on this host: its kernel thread, its line to the home, its signal state, and the
// entry points of what it does: system calls (syscalls.cc), page faults (guest_fault.cc), signals
// (guest_signals.cc), moving to another host (guest_move.cc).
//
// Threading: everything is for the thread itself, except kick() and call_away(). Ownership: the
// Slice owns guest threads until they end; one that moves away owns itself for its last steps.
#pragma once

#include <pthread.h>
#include <ucontext.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <string>

#include "dom0-daemon/hypervisor/usermode/guest_memory.h"
#include "dom0-daemon/hypervisor/usermode/home_ops.h"
#include "dom0-daemon/hypervisor/usermode/io_calls.h"
#include "dom0-daemon/hypervisor/usermode/line.h"
#include "dom0-daemon/hypervisor/usermode/thread_block.h"

namespace xenspan::hypervisor::usermode {

class Slice;

// Interrupts a kernel thread so that it looks for guest signals. Linux itself never sends this one,
// and guests' own signals never reach the kernel. Not a real-time signal: those queue up, and a
// thread that gets no processor for seconds is kicked hundreds of times. The kernel then builds
// all the handlers' frames at once, and the process ends when the signal stack cannot hold them.
inline constexpr int kKickSignal = SIGSTKFLT;

class GuestThread final : public GuestMemory {
 public:
  // Makes the kernel thread and lets it run the guest. 0 or -errno.
  static int start(Slice& slice, const StartThread& start);
  // The same for a thread that comes from another host; the packet has been checked
  // (thread_state.h).
  static int take_over(Slice& slice, const Packet& state);
  ~GuestThread() override;

  int tid() const { return start_.clone.tid; }
  // Makes the thread look for signals soon. Any thread.
  void kick();
  // Makes it ask the home soon where to be, and go there. Any thread.
  void call_away();
  bool called_away() const { return called_away_.load(std::memory_order_relaxed); }
  // What it asks the home for at this moment, in words; nullptr: nothing. Any thread.
  const char* asking() const { return asking_.load(std::memory_order_relaxed); }

  // GuestMemory
  bool read(void* to, std::uint64_t address, std::size_t bytes) noexcept override;
  bool write(std::uint64_t address, const void* from, std::size_t bytes) noexcept override;
  bool read_string(std::string& to, std::uint64_t address, std::size_t limit) override;

  // From signal entry. Each returns when the guest may go on with `context`.
  void on_syscall(ucontext_t& context);
  // true when the fault is served; false: the guest's own fault (deliver or end).
  bool on_page_fault(std::uint64_t address, bool write, bool mapped, std::uint64_t pc);
  void on_guest_fault(int signo, const siginfo_t& info, ucontext_t& context);
  void on_kick(ucontext_t& context);
  // At a point where `context` is the guest's whole state: asks the home, and does not return when
  // the thread has gone. in_call: RAX holds the number of a system call to be started again there.
  void go(ucontext_t& context, bool in_call);

  // The FS base the guest has now.
  std::uint64_t guest_fs = 0;

 private:
  explicit GuestThread(Slice& slice, const StartThread& start) : slice_(slice), start_(start) {}
  static int launch(std::unique_ptr<GuestThread> thread);
  static void* body(void* self);
  void run();
  void keep_to_core();
  [[noreturn]] void leave(bool ask_home);
  [[noreturn]] void park();
  // One request to the home, when the gate lets it; the answer is in answer_.
  void ask(Op op, const Packet& request, Packet& answer);
  void connect();
  void forget_child_tid();
  void release_robust_list();

  // guest_move.cc
  void write_state(const ucontext_t& context, bool in_call);
  // true: it came in the middle of a system call.
  bool arrive(ucontext_t& context);
  std::int64_t time_left(std::int64_t timeout);

  // syscalls.cc
  void run_call(ucontext_t& context);
  std::int64_t dispatch(std::int64_t number, ucontext_t& context, bool& finished);
  std::int64_t home_io(const Call& call);
  std::int64_t clone_call(std::int64_t number, ucontext_t& context);
  std::int64_t refuse_fork();
  std::int64_t refuse_process(const std::string& what, const std::string& remedy);
  std::int64_t affinity_call(bool set, const Call& call);
  // syscalls_exec.cc
  std::int64_t exec_call(const Call& call, ucontext_t& context, bool& finished);
  std::int64_t pack_strings(std::uint64_t address, Packet& packet);
  // syscalls_futex.cc
  std::int64_t futex(const Call& call);
  std::int64_t futex_wait(std::uint64_t address, std::uint32_t value, std::uint32_t bitset,
                          std::int64_t timeout);
  std::int64_t futex_wake(std::uint64_t address, std::uint32_t count, std::uint32_t bitset);
  std::int64_t futex_wake_op(const Call& call);
  // syscalls_time.cc
  std::int64_t time_call(const Call& call);
  std::int64_t clock_sleep(const Call& call, clockid_t clock, int flags, std::uint64_t request,
                           std::uint64_t remain);
  std::int64_t interval_timer(const Call& call);
  // syscalls_signal.cc
  std::int64_t signal_call(const Call& call, ucontext_t& context, bool& finished);
  std::int64_t send_signal(int pid, int tid, int signo, const siginfo_t* given);
  // guest_signals.cc
  bool take_signal(ucontext_t& context, std::int64_t syscall_result, std::int64_t number);
  bool push_frame(ucontext_t& context, int signo, const siginfo_t& info, const GuestAction& action);
  bool pop_frame(ucontext_t& context);
  // As a new program has them.
  static void reset_registers(ucontext_t& context, const StartRegisters& start);

  Slice& slice_;
  StartThread start_;
  ThreadBlock block_;
  pthread_t kernel_thread_{};
  std::atomic<int> kernel_tid_{0};
  std::unique_ptr<Line> line_;
  unsigned line_role_ = 0;  // the home that the line leads to: Slice::role() at that time
  std::atomic<const char*> asking_{nullptr};
  void* signal_stack_ = nullptr;

  std::uint64_t mask_ = 0;        // the guest's blocked signals
  std::uint64_t saved_mask_ = 0;  // rt_sigsuspend's: restored by the handler's return
  bool restore_mask_ = false;
  stack_t guest_stack_{nullptr, SS_DISABLE, 0};
  std::atomic<bool> kicked_{false};
  std::uint64_t robust_list_ = 0;
  char name_[16] = {};

  std::atomic<bool> called_away_{false};
  bool gone_ = false;  // to another host
  // When the timeout of a system call ends that may be started again, here or elsewhere; ns on the
  // home's clock, 0: none.
  std::int64_t deadline_ = 0;
  Packet arrival_;  // what the old host sent, until it is loaded

  // request_/answer_ belong to system calls; fault_* to page faults, which happen inside them.
  Packet request_, answer_, fault_request_, fault_answer_;
};

}  // namespace xenspan::hypervisor::usermode
