#include "dom0-daemon/hypervisor/usermode/parker.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

}  // namespace

std::int64_t Parker::sleep(std::int64_t timeout_ns) {
  timespec deadline{};
  if (timeout_ns >= 0) {
    ::clock_gettime(CLOCK_MONOTONIC, &deadline);
    const std::int64_t limit = deadline.tv_nsec + timeout_ns % kSecond;
    deadline.tv_sec += timeout_ns / kSecond + limit / kSecond;
    deadline.tv_nsec = limit % kSecond;
  }
  for (;;) {
    std::uint32_t state = state_.load(std::memory_order_acquire);
    if (state == kWoken) return 0;
    if (state == kInterrupted) {
      // A wake that comes at this very moment must win: it has been counted by the waker.
      if (state_.compare_exchange_strong(state, kIdle)) return -EINTR;
      continue;
    }
    const long result =
        ::syscall(SYS_futex, &state_, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, kIdle,
                  timeout_ns >= 0 ? &deadline : nullptr, nullptr, FUTEX_BITSET_MATCH_ANY);
    if (result != 0 && errno == ETIMEDOUT && state_.load() == kIdle) return -ETIMEDOUT;
  }
}

void Parker::set(std::uint32_t state) {
  std::uint32_t now = state_.load(std::memory_order_relaxed);
  while (now < state && !state_.compare_exchange_weak(now, state, std::memory_order_acq_rel)) {
  }
  ::syscall(SYS_futex, &state_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

}  // namespace xenspan::hypervisor::usermode
