// What a slice does when others have died and the domain goes on: each order is one step of
// dsm-rdma/survival.h, done in a thread of its own and answered with `done` (control.md). The plan
// is the daemon's (dom0-daemon/daemon/domain_survival.cc).
//
// Threading: take_survival_step() from the worker's main thread. The daemon waits for each answer
// before the next order, so that one step is done at a time; a change of members may be stuck
// beside it, waiting for the host that died. Ownership: control and steps outlive the threads.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "dom0-daemon/slice/control_channel.h"
#include "dsm-rdma/engine.h"

namespace xenspan::slice {

class SurvivalSteps {
 public:
  // These two concern connections, too.
  virtual Status freeze(dsm::HostMask lost) = 0;
  virtual Status forget(const dsm::SlotTable& table, dsm::Epoch epoch) = 0;
  virtual dsm::Engine& engine() = 0;

  // False: not such an order.
  bool take_survival_step(ControlChannel& control, const std::string& op,
                          const nlohmann::json& body);

 protected:
  ~SurvivalSteps() = default;

 private:
  Status carry_out(const std::string& op, const nlohmann::json& body, nlohmann::json& answer);
  Status forget_all(const nlohmann::json& body);
};

}  // namespace xenspan::slice
