// The clock of leases: it goes on while the machine sleeps, never goes back, and is the same in
// every process of the host.
#pragma once

#include <cstdint>
#include <ctime>

namespace xenspan {

// Milliseconds of CLOCK_BOOTTIME. Threading: any.
inline std::int64_t boot_ms() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

}  // namespace xenspan
