// The life of a slice worker: obeys xenspand's orders on the control channel until told to stop
// (see control.md).
//
// Threading: run() on the main thread; the domain's end and failures are reported from whichever
// thread finds them.
#pragma once

#include <atomic>
#include <memory>

#include "dom0-daemon/slice/control_channel.h"
#include "dom0-daemon/slice/member_steps.h"
#include "dom0-daemon/slice/order.h"
#include "dom0-daemon/slice/role_steps.h"
#include "dom0-daemon/slice/survival_steps.h"

namespace xenspan::slice {

class Worker : public MemberSteps, public SurvivalSteps, private RoleSteps {
 public:
  explicit Worker(UniqueFd control) : control_(std::move(control)) {}
  // Returns the process's exit status.
  int run();

 private:
  Status create();
  Status join();
  Status start();
  void serve();
  bool obey(const ControlChannel::Packet& packet);
  void resolve(std::vector<std::uint64_t> bytes, nlohmann::json id);
  // worker_members.cc
  Status add_peer(dsm::HostId host, const dsm::tcp::Peer& peer) override;
  Status admit_peer(dsm::HostId host) override;
  Status remove_peer(dsm::HostId host) override;
  void learn_slots(const dsm::SlotTable& table) override;
  Result<unsigned> vacate(dsm::HostId host) override;
  dsm::Engine& engine() override;
  Status freeze(dsm::HostMask lost) override;
  Status forget(const dsm::SlotTable& table, dsm::Epoch epoch) override;
  void migrate(unsigned vcpu, hypervisor::usermode::VcpuPlace to, nlohmann::json id);
  Result<ControlChannel::Packet> expect(const char* op);
  Status listen();
  // What is left of the lease, in milliseconds and at most `most`; ends it when it is over.
  int obey_lease(int most);
  void fail(int status, const std::string& cause);

  ControlChannel control_;
  Order order_;
  std::vector<UniqueFd> given_;
  UniqueFd listening_;
  std::unique_ptr<hypervisor::usermode::Slice> slice_;
  std::int64_t lease_end_ = 0;     // by CLOCK_BOOTTIME, ms; 0: none is needed
  std::atomic<bool> over_{false};  // exited or failed has been reported
};

}  // namespace xenspan::slice
