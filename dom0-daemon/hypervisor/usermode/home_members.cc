// What the home does for hosts that join and leave: the newcomer learns where each vCPU is, and a
// host that leaves is waited for until its last thread has gone.
#include <cerrno>
#include <chrono>

#include "dom0-daemon/hypervisor/usermode/home.h"

namespace xenspan::hypervisor::usermode {
namespace {

// Between two calls of threads that are still there; most have gone with their vCPU.
constexpr std::chrono::milliseconds kAgain{10};

}  // namespace

// Between two changes of placement: what comes later it is told as all others are.
void Home::tell_places(dsm::HostId host, const std::string& name) {
  std::lock_guard guard(placing_);
  services_.hosts[host] = name;
  for (unsigned vcpu = 0; vcpu < services_.places->size(); ++vcpu)
    services_.tell_place(host, vcpu, services_.places->at(vcpu));
}

Result<unsigned> Home::vacate(dsm::HostId host, std::chrono::milliseconds limit) {
  for (unsigned vcpu = 0; vcpu < services_.places->size(); ++vcpu)
    if (services_.places->at(vcpu).host == host)
      return Error{EBUSY, "vCPU " + std::to_string(vcpu) + " is placed there"};
  const auto end = std::chrono::steady_clock::now() + limit;
  for (;;) {
    std::vector<std::shared_ptr<HomeThread>> there;
    {
      std::lock_guard guard(lock_);
      for (const auto& [tid, thread] : threads_)
        if (thread->host == host) there.push_back(thread);
    }
    if (ending_) return Error{ESRCH, "the domain has ended"};
    if (there.empty() || std::chrono::steady_clock::now() >= end)
      return static_cast<unsigned>(there.size());
    for (const auto& thread : there) call_away(*thread);
    std::unique_lock guard(lock_);
    settling_.wait_for(guard, kAgain);
  }
}

}  // namespace xenspan::hypervisor::usermode
