// What a slice does when the home's role moves to another: each order is one step of the daemon's
// plan, done in a thread of its own and answered with `done` (control.md). User-mode domains only.
//
// Threading: take_role_step() from the worker's main thread; one step at a time, but for `hold`,
// which says why another has to wait. Ownership: control, slice and steps outlive the threads.
#pragma once

#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "dom0-daemon/hypervisor/usermode/slice.h"
#include "dom0-daemon/slice/control_channel.h"

namespace xenspan::slice {

class RoleSteps {
 public:
  // False: not such an order.
  bool take_role_step(ControlChannel& control, hypervisor::usermode::Slice& slice,
                      const std::string& op, const nlohmann::json& body);

 private:
  Status carry_out(hypervisor::usermode::Slice& slice, const std::string& op,
                   const nlohmann::json& body, nlohmann::json& answer);

  std::mutex lock_;  // one step at a time
};

}  // namespace xenspan::slice
