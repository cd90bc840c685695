// From root to the invoking user, and on a remote host down to the system calls a slice needs.
//
// become_user() once, from the main thread, before other threads exist. confine() last, after the
// slice has joined.
#pragma once

#include "base/result.h"
#include "dom0-daemon/slice/order.h"

namespace xenspan::slice {

// Cores of this host's vCPUs; threads started later inherit them.
void keep_to_cores(const Order& order);
// Groups, group, user; keeps the right to real-time priority for service threads (RLIMIT_RTPRIO).
Status become_user(const Order& order);
// seccomp: anything but the slice's own needs fails with EPERM. Guest calls never come here, they
// are dispatched before.
Status confine();

}  // namespace xenspan::slice
