// The real signals the runtime lives on: SIGSYS (system calls), SIGBUS (page faults), the guest's
// own faults, and the kick.
//
// install_signal_handlers() once, before the first guest thread. enter_thread_block() on every
// thread that may get one of them: it sets the GS base that signal entry relies on. Linux only,
// x86-64 with FSGSBASE (checked).
#pragma once

#include "base/result.h"
#include "dom0-daemon/hypervisor/usermode/thread_block.h"

namespace xenspan::hypervisor::usermode {

Status install_signal_handlers();
// `block` must live as long as the thread or until leave_thread_block().
void enter_thread_block(ThreadBlock& block);
void leave_thread_block();

}  // namespace xenspan::hypervisor::usermode
