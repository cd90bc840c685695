// A guest thread goes to another host: it hands its whole state to the home, which lets the other
// slice make a kernel thread of it; this one ends.
//
// Safe points are where the guest's registers are all in a signal frame: a kick or a served page
// fault in guest code, the end of a system call, and a system call that was interrupted before it
// had any effect, which the new host starts again.
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "dom0-daemon/hypervisor/usermode/clock.h"
#include "dom0-daemon/hypervisor/usermode/guest_thread.h"
#include "dom0-daemon/hypervisor/usermode/slice.h"
#include "dom0-daemon/hypervisor/usermode/thread_state.h"

namespace xenspan::hypervisor::usermode {

int GuestThread::take_over(Slice& slice, const Packet& state) {
  const auto fixed = Reader(state).get<ThreadState>();
  StartThread start{};
  start.clone.tid = fixed.tid;
  start.clone.child_tid = fixed.child_tid;
  start.vcpu = fixed.vcpu;
  std::unique_ptr<GuestThread> thread(new GuestThread(slice, start));
  thread->arrival_ = state;
  return launch(std::move(thread));
}

void GuestThread::call_away() {
  called_away_ = true;
  kick();
}

void GuestThread::write_state(const ucontext_t& context, bool in_call) {
  ThreadState state;
  state.tid = tid();
  state.vcpu = start_.vcpu;
  const auto& registers = context.uc_mcontext.gregs;
  std::memcpy(state.registers.data(), registers, sizeof state.registers);
  state.flags = static_cast<std::uint64_t>(registers[REG_EFL]);
  state.fs = guest_fs;
  state.mask = mask_;
  state.saved_mask = saved_mask_;
  state.restore_mask = restore_mask_ ? 1 : 0;
  state.stack_start = reinterpret_cast<std::uint64_t>(guest_stack_.ss_sp);
  state.stack_bytes = guest_stack_.ss_size;
  state.stack_flags = guest_stack_.ss_flags;
  state.robust_list = robust_list_;
  state.child_tid = start_.clone.child_tid;
  state.deadline = deadline_;
  state.in_call = in_call ? 1 : 0;
  std::memcpy(state.name.data(), name_, sizeof name_);
  Writer out(request_);
  out.put(state);
  // What this program cannot move makes a packet that every host refuses.
  if (!put_vector_state(context.uc_mcontext.fpregs, out)) request_.resize(sizeof state);
}

void GuestThread::go(ucontext_t& context, bool in_call) {
  called_away_ = false;  // before the question: a later call is about a later answer
  write_state(context, in_call);
  // The thread may be back here, as another kernel thread, before this one has ended.
  slice_.release(tid());
  ask(Op::kMove, request_, answer_);
  Reader in(answer_);
  const auto result = in.get<std::int64_t>();
  const auto vcpu = in.get<std::uint32_t>();
  if (in.ok() && result == 0) {
    gone_ = true;
    xs_leave_guest();
  }
  slice_.add(std::unique_ptr<GuestThread>(this));
  if (!in.ok() || vcpu >= slice_.places().size()) return;
  start_.vcpu = vcpu;
  if (result > 0) keep_to_core();
}

bool GuestThread::arrive(ucontext_t& context) {
  Reader in(arrival_);
  const auto state = in.get<ThreadState>();
  auto& registers = context.uc_mcontext.gregs;
  std::memcpy(registers, state.registers.data(), sizeof state.registers);
  constexpr auto kFlags = static_cast<greg_t>(kUserFlags);
  registers[REG_EFL] = (registers[REG_EFL] & ~kFlags) | (static_cast<greg_t>(state.flags) & kFlags);
  if (!take_vector_state(in, context.uc_mcontext.fpregs)) {
    slice_.stop(
        "a thread came with vector registers that this host cannot load: start the program "
        "on hosts with the same processors");
    park();
  }
  guest_fs = state.fs;
  mask_ = state.mask;
  saved_mask_ = state.saved_mask;
  restore_mask_ = state.restore_mask != 0;
  guest_stack_.ss_sp = reinterpret_cast<void*>(state.stack_start);
  guest_stack_.ss_size = state.stack_bytes;
  guest_stack_.ss_flags = state.stack_flags;
  robust_list_ = state.robust_list;
  deadline_ = state.deadline;
  std::memcpy(name_, state.name.data(), sizeof name_);
  name_[sizeof name_ - 1] = '\0';
  arrival_ = Packet();
  return state.in_call != 0;
}

// What is left of a timeout that began when the call was first started; ns.
std::int64_t GuestThread::time_left(std::int64_t timeout) {
  if (timeout <= 0) return timeout;
  const std::int64_t now = clock_ns(CLOCK_MONOTONIC) + slice_.monotonic_offset();
  if (deadline_ == 0 && __builtin_add_overflow(now, timeout, &deadline_)) deadline_ = INT64_MAX;
  return std::clamp<std::int64_t>(deadline_ - now, 0, timeout);
}

}  // namespace xenspan::hypervisor::usermode
