// Where each vCPU of a domain under Xen is, as one slice knows it, and what becomes of an interrupt
// for one: delivered here, kept until the vCPU has come, or passed on to where it went.
//
// A slice that a vCPU has left passes on what still comes for it, so what others know may be old:
// it follows the vCPU's way. Together with Slice::take_vcpu() and put_vcpu() no interrupt is lost
// and none comes twice. Threading: any thread; one short lock, held while an interrupt is delivered
// or sent, so that nothing is delivered to a vCPU that go() has sent away. Ownership: values.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "dsm-rdma/types.h"

namespace xenspan::slice {

class VcpuRoutes {
 public:
  using Deliver = std::function<void(unsigned vcpu, std::uint8_t vector)>;
  using PassOn = std::function<void(dsm::HostId to, unsigned vcpu, std::uint8_t vector)>;

  VcpuRoutes(dsm::HostId self, std::vector<dsm::HostId> places, Deliver deliver, PassOn pass_on);

  void interrupt(unsigned vcpu, std::uint8_t vector);
  // The vCPU will come here: what is for it is kept.
  void expect(unsigned vcpu);
  // It has been put here, or was not taken after all: it gets what was kept.
  void come(unsigned vcpu);
  // It goes there, or has gone there from elsewhere. Called before it is taken from here. What was
  // kept follows it.
  void go(unsigned vcpu, dsm::HostId to);

  dsm::HostId place(unsigned vcpu) const;
  unsigned count_on(dsm::HostId host) const;
  unsigned size() const { return static_cast<unsigned>(places_.size()); }
  // Runs `act` when every interrupt is either sent already or will see what go() has said.
  void between_interrupts(const std::function<void()>& act) const;

 private:
  struct Place {
    dsm::HostId host = 0;
    bool coming = false;  // here, and not yet put
    std::vector<std::uint8_t> kept;
  };

  const dsm::HostId self_;
  const Deliver deliver_;
  const PassOn pass_on_;
  mutable std::mutex lock_;
  std::vector<Place> places_;  // by vCPU; their number never changes
};

}  // namespace xenspan::slice
