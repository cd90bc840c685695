// By what wire this slice reaches the others: TCP, or RDMA verbs on a device of this host.
//
// From the daemon's `create` order. Called once, from the worker's main thread, in this order:
// allow_locked_memory() before the slice gives up root, connect() when all slices listen.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "dsm-rdma/transport/tcp/tcp_transport.h"

namespace xenspan::slice {

struct Wire {
  std::string transport = "tcp";  // or "verbs", or "none" when the domain has one host
  // This host's device, as in VerbsConfig.
  std::string device;
  unsigned port = 0;
  int gid_index = -1;
  unsigned service_level = 0, traffic_class = 0;
  // A slice that acknowledges nothing for this long is lost: ten seconds, or the cluster's
  // `lost-after` where that is longer.
  unsigned dead_after_ms = 10'000;

  bool verbs() const { return transport == "verbs"; }
};

// RDMA buffers are locked. The limit is raised by what they take and no more, since the guest's
// program lives under it too.
Status allow_locked_memory(const Wire& wire, unsigned hosts);

Result<std::unique_ptr<dsm::Transport>> connect(const Wire& wire, dsm::tcp::MeshConfig mesh,
                                                dsm::tcp::Acceptor& acceptor);

}  // namespace xenspan::slice
