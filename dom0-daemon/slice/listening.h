// The socket on which a slice waits for the other slices of its domain.
//
// Called once, from the worker's main thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace xenspan::slice {

struct Listening {
  UniqueFd socket;
  std::uint16_t port = 0;  // chosen by the kernel
};

// At a numeric address, on a free port.
Result<Listening> listen_at(const std::string& address);

}  // namespace xenspan::slice
