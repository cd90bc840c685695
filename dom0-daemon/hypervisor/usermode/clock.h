// A clock of this host in nanoseconds. Threading: any thread, also signal handlers.
#pragma once

#include <time.h>

#include <cstdint>

namespace xenspan::hypervisor::usermode {

inline std::int64_t clock_ns(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace xenspan::hypervisor::usermode
