// Threads of the runtime itself: real-time, so that a busy vCPU on the same core does not keep them
// from their work.
//
// The kernel lets a running thread go on for milliseconds before a woken ordinary one gets its
// core, which would be added to every remote fault. CAP_SYS_NICE or RLIMIT_RTPRIO is needed;
// without, the thread runs at ordinary priority and the caller is told once.
#pragma once

#include <functional>

namespace xenspan::hypervisor::usermode {

enum class Priority : int {
  kHouse = 0,    // ordinary
  kCalls = 40,   // system calls and control between slices
  kFaults = 50,  // the coherence engine
};

// Starts a detached thread with `name` (15 characters at most). Signals for the guest are handled
// as runtime_signals.h says.
void start_service_thread(const char* name, Priority priority, std::function<void()> body);
// Whether a real-time priority was refused to one of them.
bool real_time_refused();

}  // namespace xenspan::hypervisor::usermode
