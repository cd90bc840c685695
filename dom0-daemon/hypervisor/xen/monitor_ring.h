// One domain's monitor ring: page faults and watched machine registers of its vCPUs, reported by
// Xen one by one, each vCPU held until it is answered.
//
// Opened before the first right is taken away. Closing it lets every vCPU it holds run on and gives
// Xen's rights no listener: close it only when the domain is paused or all rights are back.
// Threading: take() from one thread, the one that waits for fd(); answer() and publish() from any.
// Ownership: owns ring page and event channel; `xen` is borrowed.
#pragma once

#include <memory>

#include "base/result.h"
#include "dom0-daemon/hypervisor/xen/event_ring.h"
#include "dom0-daemon/hypervisor/xen/xen_calls.h"

namespace xenspan::hypervisor::xen {

class MonitorRing {
 public:
  static Result<std::unique_ptr<MonitorRing>> open(XenCalls& xen, DomainId domain);
  ~MonitorRing();

  int fd() const { return channel_.fd(); }
  // Takes all events that are pending, in order; `handle(event)` answers some now and others later.
  // One wake-up, one notification for all answers given meanwhile. 0 or an errno.
  template <typename Handle>
  int take(Handle&& handle) noexcept {
    channel_.take();
    for (VcpuEvent event; ring_.next(event);) handle(event);
    return ring_.error() != 0 ? ring_.error() : publish();
  }
  void answer(const VcpuEvent& event) noexcept { ring_.answer(event); }
  int publish() noexcept { return ring_.publish() ? channel_.notify() : 0; }

 private:
  MonitorRing(XenCalls& xen, DomainId domain, XenCalls::MonitorPage page, EventChannel channel);

  XenCalls& xen_;
  const DomainId domain_;
  const XenCalls::MonitorPage page_;
  EventChannel channel_;
  EventRing ring_;
};

}  // namespace xenspan::hypervisor::xen
