// A thread's line to the home: one request, one answer. At the home itself it is a function call.
// Threading: one thread at a time.
#pragma once

#include "dom0-daemon/hypervisor/usermode/home_ops.h"
#include "dom0-daemon/hypervisor/usermode/packet.h"

namespace xenspan::hypervisor::usermode {

class Line {
 public:
  virtual ~Line() = default;
  // false: the home is gone (the caller parks; the slice ends with the cause).
  virtual bool call(Op op, std::uint64_t signal_mask, const Packet& request, Packet& answer) = 0;
};

}  // namespace xenspan::hypervisor::usermode
