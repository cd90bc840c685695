// What a slice does when hosts join and leave, whatever its guest is: each order is one step of the
// daemon's plan (dom0-daemon/daemon/domain_members.cc), done in a thread of its own because it may
// wait for other hosts, and answered with `done` (control.md).
//
// Threading: take_step() from the worker's main thread; the steps one at a time, but for vacate(),
// each in a thread of its own. Ownership: control and steps are borrowed and outlive the threads.
#pragma once

#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "dom0-daemon/slice/control_channel.h"
#include "dsm-rdma/engine.h"
#include "dsm-rdma/transport/tcp/tcp_transport.h"

namespace xenspan::slice {

// The hosts that a list of an order names.
Result<dsm::HostMask> hosts_in(const nlohmann::json& body, const char* key);

class MemberSteps {
 public:
  virtual Status add_peer(dsm::HostId host, const dsm::tcp::Peer& peer) = 0;
  virtual Status admit_peer(dsm::HostId host) = 0;
  virtual Status remove_peer(dsm::HostId host) = 0;
  virtual void learn_slots(const dsm::SlotTable& table) = 0;
  // At the home: how many of the guest's threads are still there.
  virtual Result<unsigned> vacate(dsm::HostId host) = 0;
  // Before the engine gives all away: nobody asks it for anything any more.
  virtual void rest() {}
  virtual dsm::Engine& engine() = 0;

  // False: not such an order.
  bool take_step(ControlChannel& control, const std::string& op, const nlohmann::json& body);

 protected:
  ~MemberSteps() = default;

 private:
  Status carry_out(const std::string& op, const nlohmann::json& body, nlohmann::json& answer);
  Status learn(const nlohmann::json& body);

  std::mutex lock_;  // one change of members at a time
};

}  // namespace xenspan::slice
