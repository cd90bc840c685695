// Where a process that lends descriptor numbers to somebody else (a guest program) keeps its own.
//
// Connections are made while that program runs: a number below the limit would be one that the
// program gets to see, may close or use up. For the moment between the kernel's choice and the
// move, it can. Threading: any; the limit is set before others call.
#pragma once

#include <fcntl.h>

#include <atomic>

#include "base/unique_fd.h"

namespace xenspan {

inline std::atomic<int> own_descriptors_from{0};  // 0: anywhere

// The same file with a number that is this process's own. One that cannot be moved stays.
inline UniqueFd own_descriptor(UniqueFd fd) {
  const int from = own_descriptors_from.load(std::memory_order_relaxed);
  if (!fd || fd.get() >= from) return fd;
  UniqueFd moved(::fcntl(fd.get(), F_DUPFD_CLOEXEC, from));
  return moved ? std::move(moved) : std::move(fd);
}

}  // namespace xenspan
