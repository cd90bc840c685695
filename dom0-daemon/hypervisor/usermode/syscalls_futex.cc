// futex(2) of a guest thread. The word is looked at here, where its page usually is; the queues are
// at the home.
#include <linux/futex.h>

#include <cerrno>

#include "dom0-daemon/hypervisor/usermode/guest_thread.h"
#include "dom0-daemon/hypervisor/usermode/slice.h"
#include "dom0-daemon/hypervisor/usermode/window.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

bool aligned_word(std::uint64_t address) { return in_window(address) && address % 4 == 0; }

const void* at(std::uint64_t address) { return reinterpret_cast<const void*>(address); }

// FUTEX_WAKE_OP's encoded operation (futex(2)): new value of the second word, and whether the
// comparison held.
std::uint32_t operated(std::uint32_t code, std::uint32_t old) {
  const std::uint32_t kind = (code >> 28) & 7;
  std::uint32_t operand = (code >> 12) & 0xfff;
  if ((code >> 28) & FUTEX_OP_OPARG_SHIFT) operand = 1U << (operand & 31);
  switch (kind) {
    case FUTEX_OP_SET: return operand;
    case FUTEX_OP_ADD: return old + operand;
    case FUTEX_OP_OR: return old | operand;
    case FUTEX_OP_ANDN: return old & ~operand;
    default: return old ^ operand;
  }
}

bool compared(std::uint32_t code, std::uint32_t old) {
  const auto left = static_cast<std::int32_t>(old);
  const auto right = static_cast<std::int32_t>(code << 20) >> 20;
  switch ((code >> 24) & 15) {
    case FUTEX_OP_CMP_EQ: return left == right;
    case FUTEX_OP_CMP_NE: return left != right;
    case FUTEX_OP_CMP_LT: return left < right;
    case FUTEX_OP_CMP_LE: return left <= right;
    case FUTEX_OP_CMP_GT: return left > right;
    default: return left >= right;
  }
}

}  // namespace

std::int64_t GuestThread::futex(const Call& call) {
  const std::uint64_t address = call.args[0];
  const auto operation = static_cast<int>(call.args[1]);
  const auto value = static_cast<std::uint32_t>(call.args[2]);
  const int command = operation & FUTEX_CMD_MASK;
  if (!aligned_word(address)) return address % 4 != 0 ? -EINVAL : -EFAULT;
  slice_.home_calls.fetch_add(1, std::memory_order_relaxed);
  switch (command) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET: {
      std::int64_t timeout = -1;
      if (call.args[3] != 0) {
        timespec given{};
        if (!read(&given, call.args[3], sizeof given)) return -EFAULT;
        if (given.tv_sec < 0 || given.tv_nsec < 0 || given.tv_nsec >= kSecond) return -EINVAL;
        timeout = std::int64_t{given.tv_sec} * kSecond + given.tv_nsec;
        if (command == FUTEX_WAIT_BITSET) {  // an absolute time on the guest's clock
          const bool realtime = (operation & FUTEX_CLOCK_REALTIME) != 0;
          timespec now{};
          ::clock_gettime(realtime ? CLOCK_REALTIME : CLOCK_MONOTONIC, &now);
          timeout -= std::int64_t{now.tv_sec} * kSecond + now.tv_nsec +
                     (realtime ? slice_.realtime_offset() : slice_.monotonic_offset());
          timeout = std::max<std::int64_t>(timeout, 0);
        }
      }
      const std::uint32_t bitset =
          command == FUTEX_WAIT_BITSET ? static_cast<std::uint32_t>(call.args[5]) : ~0U;
      if (bitset == 0) return -EINVAL;
      return futex_wait(address, value, bitset, timeout);
    }
    case FUTEX_WAKE: return futex_wake(address, value, ~0U);
    case FUTEX_WAKE_BITSET:
      return call.args[5] == 0
                 ? -EINVAL
                 : futex_wake(address, value, static_cast<std::uint32_t>(call.args[5]));
    case FUTEX_CMP_REQUEUE: {
      std::uint32_t now = 0;
      if (xs_guest_load32(at(address), &now) != 0) return -EFAULT;
      if (now != static_cast<std::uint32_t>(call.args[5])) return -EAGAIN;
      [[fallthrough]];
    }
    case FUTEX_REQUEUE: {
      if (!aligned_word(call.args[4])) return -EINVAL;
      Writer(request_)
          .put(address)
          .put(call.args[4])
          .put(value)
          .put(static_cast<std::uint32_t>(call.args[3]));
      ask(Op::kFutexRequeue, request_, answer_);
      Reader in(answer_);
      const auto woken = in.get<std::int64_t>();
      const auto moved = in.get<std::int64_t>();
      return command == FUTEX_REQUEUE ? woken : woken + moved;
    }
    case FUTEX_WAKE_OP: return futex_wake_op(call);
    default: return -ENOSYS;  // priority inheritance: no scheduler spans the hosts
  }
}

std::int64_t GuestThread::futex_wait(std::uint64_t address, std::uint32_t value,
                                     std::uint32_t bitset, std::int64_t timeout) {
  std::uint32_t now = 0;
  if (xs_guest_load32(at(address), &now) != 0) return -EFAULT;
  if (now != value) return -EAGAIN;
  Writer(request_).put(address).put(bitset);
  ask(Op::kFutexEnqueue, request_, answer_);
  const auto ticket = Reader(answer_).get<std::uint64_t>();
  // Queued: whoever changes the word from here on and wakes will find this thread (see
  // futex_table.h).
  const bool readable = xs_guest_load32(at(address), &now) == 0;
  if (!readable || now != value) {
    Writer(request_).put(ticket);
    ask(Op::kFutexCancel, request_, answer_);
    if (Reader(answer_).get<std::uint8_t>() == 0)
      return 0;  // woken in between: that wake was for us
    return readable ? -EAGAIN : -EFAULT;
  }
  Writer(request_).put(ticket).put(timeout);
  ask(Op::kFutexSleep, request_, answer_);
  return Reader(answer_).get<std::int64_t>();
}

std::int64_t GuestThread::futex_wake(std::uint64_t address, std::uint32_t count,
                                     std::uint32_t bitset) {
  if (slice_.idle_futexes().idle(address)) return 0;
  Writer(request_).put(address).put(count).put(bitset);
  ask(Op::kFutexWake, request_, answer_);
  Reader in(answer_);
  const auto woken = in.get<std::int64_t>();
  if (const auto lease = in.get<std::uint64_t>(); lease != 0)
    slice_.idle_futexes().lease(address, lease);
  return woken;
}

std::int64_t GuestThread::futex_wake_op(const Call& call) {
  const std::uint64_t second = call.args[4];
  const auto code = static_cast<std::uint32_t>(call.args[5]);
  if (!aligned_word(second)) return -EINVAL;
  std::uint32_t old = 0;
  if (xs_guest_load32(at(second), &old) != 0) return -EFAULT;
  for (std::uint32_t seen = old;; old = seen) {
    if (xs_guest_compare_exchange32(reinterpret_cast<void*>(second), &seen, operated(code, old)) !=
        0)
      return -EFAULT;
    if (seen == old) break;
  }
  std::int64_t woken = futex_wake(call.args[0], static_cast<std::uint32_t>(call.args[2]), ~0U);
  if (compared(code, old))
    woken += futex_wake(second, static_cast<std::uint32_t>(call.args[3]), ~0U);
  return woken;
}

}  // namespace xenspan::hypervisor::usermode
