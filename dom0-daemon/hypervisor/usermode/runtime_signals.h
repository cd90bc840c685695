// The real signals the runtime lives on: SIGSYS (system calls), SIGBUS (page faults), the guest's
// own faults, and the kick.
//
// install_signal_handlers() once, before the first guest thread, by the main thread.
// enter_thread_block() on every other thread that may get one of them: it sets the GS base that
// signal entry relies on. A new thread has its creator's until then: create it with SignalsHeld.
// Linux only, x86-64 with FSGSBASE (checked).
#pragma once

#include <csignal>

#include "base/result.h"
#include "dom0-daemon/hypervisor/usermode/thread_block.h"

namespace xenspan::hypervisor::usermode {

Status install_signal_handlers();
// `block` must live as long as the thread or until leave_thread_block(). Signals are open then.
void enter_thread_block(ThreadBlock& block);
void leave_thread_block();

// While it lives, signals wait: those of the calling thread, and those of a thread that it creates
// until that one enters its block.
class SignalsHeld {
 public:
  SignalsHeld();
  ~SignalsHeld();
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;

 private:
  sigset_t before_;
};

}  // namespace xenspan::hypervisor::usermode
