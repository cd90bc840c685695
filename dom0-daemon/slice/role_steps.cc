#include "dom0-daemon/slice/role_steps.h"

#include <algorithm>
#include <chrono>

#include "dom0-daemon/slice/answered_step.h"

namespace xenspan::slice {
namespace {

using nlohmann::json;

// How long calls have to end before the daemon hears of them.
constexpr std::chrono::milliseconds kHoldLook{500};

dsm::HostId host_in(const json& body, const char* key) {
  return body.value(key, dsm::HostId{dsm::kMaxHosts});
}

}  // namespace

Status RoleSteps::carry_out(hypervisor::usermode::Slice& slice, const std::string& op,
                            const json& body, json& answer) {
  if (op == "hold") {
    const auto held = slice.hold(kHoldLook);
    answer["calls"] = held.calls;
    if (!held.names.empty()) answer["names"] = held.names;
    return {};
  }
  const std::lock_guard guard(lock_);
  if (op == "release") return slice.release(), Status();
  if (op == "forget-home") return slice.forget_engine_home(), Status();
  const auto signals =
      op == "home" ? slice.set_home(host_in(body, "host")) : slice.give_home(host_in(body, "to"));
  if (!signals) return signals.error();
  if (!signals->empty()) answer["signals"] = *signals;
  return {};
}

bool RoleSteps::take_role_step(ControlChannel& control, hypervisor::usermode::Slice& slice,
                               const std::string& op, const json& body) {
  constexpr const char* kOps[] = {"hold", "give-home", "home", "release", "forget-home"};
  if (std::find(std::begin(kOps), std::end(kOps), op) == std::end(kOps)) return false;
  take_answered_step("xs-role", control, body, [this, &slice, op, body](json& answer) {
    return carry_out(slice, op, body, answer);
  });
  return true;
}

}  // namespace xenspan::slice
