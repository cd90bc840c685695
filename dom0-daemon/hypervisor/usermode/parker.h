// Where one thread of the domain sleeps at the home until somebody wakes or interrupts it.
//
// A wake that comes before the sleep is not lost. Threading: sleep() from the one thread; wake(),
// interrupt() from any.
#pragma once

#include <atomic>
#include <cstdint>

namespace xenspan::hypervisor::usermode {

class Parker {
 public:
  // Forgets earlier wakes: before the new wait becomes visible to wakers.
  void prepare() { state_.store(kIdle, std::memory_order_release); }
  // 0 woken, -ETIMEDOUT, -EINTR. timeout_ns < 0: for ever.
  std::int64_t sleep(std::int64_t timeout_ns);
  void wake() { set(kWoken); }
  void interrupt() { set(kInterrupted); }
  // A wake that no sleep has taken.
  bool woken() const { return state_.load(std::memory_order_acquire) == kWoken; }

 private:
  static constexpr std::uint32_t kIdle = 0, kInterrupted = 1, kWoken = 2;
  void set(std::uint32_t state);
  std::atomic<std::uint32_t> state_{kIdle};
};

}  // namespace xenspan::hypervisor::usermode
