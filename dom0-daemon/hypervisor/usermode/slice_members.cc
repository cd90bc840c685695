// Hosts join and leave while the slice runs: its connections to them, and at the home the control
// lines. The plan is the daemon's (dom0-daemon/daemon/domain_members.cc); what each step means to
// pages and slots says dsm-rdma/membership.h.
//
// A host's entries in the configuration are written before anything of it can be seen: by threads
// that come from it, by its pages, or by vCPUs that are placed there.
#include <cerrno>

#include "base/log.h"
#include "dom0-daemon/hypervisor/usermode/service_threads.h"
#include "dom0-daemon/hypervisor/usermode/slice.h"

namespace xenspan::hypervisor::usermode {

Status Slice::connect_control(dsm::HostId host) {
  dsm::tcp::ConnectOptions options = options_to(host, kControlPurpose);
  options.epoch = acceptor_->epoch();
  auto stream = dsm::tcp::connect_stream(options);
  if (!stream) return stream.error();
  const auto control = std::make_shared<Control>();
  control->stream = std::move(*stream);
  controls_[host] = control;
  start_service_thread("xs-kick", Priority::kCalls,
                       [this, host, control] { send_kicks(host, *control); });
  return {};
}

void Slice::close_control(dsm::HostId host) {
  const auto control = controls_[host].exchange(nullptr);
  if (control == nullptr) return;
  control->stream->shutdown();  // for whoever waits for a host that is silent
  {
    std::lock_guard guard(control->lock);
    control->stream.reset();
  }
  {
    // Its thread finds the stream closed, and ends.
    std::lock_guard guard(control->kick_lock);
    control->kicks.emplace(0, Op::kKick);
  }
  control->kicker.wake();
}

Status Slice::add_peer(dsm::HostId host, const dsm::tcp::Peer& peer) {
  if (host >= dsm::kMaxHosts || host == config_.self)
    return Error{EINVAL, "host number " + std::to_string(host) + " cannot join"};
  config_.hosts[host] = peer.name;
  config_.addresses[host] = peer.address;
  config_.ports[host] = peer.port;
  return dsm::tcp::add_peer(*transport_, *acceptor_, host, peer, kConnectLimitMs);
}

// Until this its loss concerns nobody.
Status Slice::admit_peer(dsm::HostId host) {
  if (host >= dsm::kMaxHosts || config_.hosts[host].empty())
    return Error{EINVAL, "host number " + std::to_string(host) + " has not connected"};
  if (Status added = engine_->add_peer(host, config_.hosts[host]); !added) return added;
  if (!is_home()) return {};
  if (Status controlled = connect_control(host); !controlled) return controlled;
  home_->tell_places(host, config_.hosts[host]);
  return {};
}

void Slice::learn_slots(const dsm::SlotTable& table) {
  engine_->learn_slots(table);
  if (!serving_) start_serving();
}

Status Slice::remove_peer(dsm::HostId host) {
  if (host >= dsm::kMaxHosts || host == config_.self)
    return Error{EINVAL, "host number " + std::to_string(host) + " cannot leave"};
  if (is_home()) close_control(host);
  if ((engine_->members() & dsm::mask_of(host)) != 0) return engine_->remove_peer(host);
  transport_->remove_peer(host);
  return {};
}

Status Slice::freeze(dsm::HostMask lost) {
  if (is_home())
    for (dsm::HostId host = 0; host < dsm::kMaxHosts; ++host)
      if ((lost & dsm::mask_of(host)) != 0) close_control(host);
  return engine_->freeze(lost);
}

Status Slice::forget(const dsm::SlotTable& table, dsm::Epoch epoch) {
  acceptor_->enter_epoch(epoch);
  return engine_->forget(table, epoch);
}

}  // namespace xenspan::hypervisor::usermode
