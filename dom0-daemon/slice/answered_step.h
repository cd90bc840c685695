// An order that may wait for other hosts: carried out in a thread of its own, and answered with
// `done` (control.md).
//
// Threading: from the worker's main thread. Ownership: control outlives the thread.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>

#include "base/result.h"
#include "dom0-daemon/slice/control_channel.h"

namespace xenspan::slice {

// `step` puts into `answer` what is to be told; what it throws is an order that is wrong. `thread`:
// the thread's name, at most 15 bytes.
void take_answered_step(const char* thread, ControlChannel& control, const nlohmann::json& body,
                        std::function<Status(nlohmann::json& answer)> step);

}  // namespace xenspan::slice
