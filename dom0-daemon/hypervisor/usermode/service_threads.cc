#include "dom0-daemon/hypervisor/usermode/service_threads.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <thread>

#include "dom0-daemon/hypervisor/usermode/runtime_signals.h"

namespace xenspan::hypervisor::usermode {
namespace {
std::atomic<bool> refused{false};
}

void start_service_thread(const char* name, Priority priority, std::function<void()> body) {
  const SignalsHeld held;
  std::thread([name, priority, body = std::move(body)] {
    ThreadBlock block;
    enter_thread_block(block);
    ::pthread_setname_np(::pthread_self(), name);
    sched_param parameter{};
    parameter.sched_priority = static_cast<int>(priority);
    const int policy = priority == Priority::kHouse ? SCHED_OTHER : SCHED_FIFO;
    if (::sched_setscheduler(0, policy, &parameter) != 0) {
      refused = true;
      const sched_param ordinary{};
      ::sched_setscheduler(0, SCHED_OTHER, &ordinary);
    }
    body();
    leave_thread_block();
  }).detach();
}

bool real_time_refused() { return refused; }

}  // namespace xenspan::hypervisor::usermode
