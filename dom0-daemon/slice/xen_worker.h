// The life of a slice under Xen: as Worker, for a `create` order whose backend is xen.
//
// The domain is there already: the home's by `xl create`, a remote one made paused by its host's
// xenspand. Whatever goes wrong once the guest's memory was taken over, the local domain is paused
// and stays so: nothing it could touch is right any more. Threading: called from the worker's main
// thread, returns the process's exit status; other threads may then still run, so _exit().
#pragma once

#include <nlohmann/json.hpp>

#include "dom0-daemon/slice/control_channel.h"

namespace xenspan::slice {

int work_for_xen(ControlChannel& control, const nlohmann::json& create);

}  // namespace xenspan::slice
