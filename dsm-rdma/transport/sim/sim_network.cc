#include "dsm-rdma/transport/sim/sim_network.h"

#include "dsm-rdma/transport/sim/endpoint.h"

namespace xenspan::dsm::sim {

Network::Network(const NetworkConfig& config) {
  endpoints_.reserve(config.hosts);
  for (unsigned host = 0; host < config.hosts; ++host) {
    endpoints_.push_back(std::make_unique<Endpoint>(config, static_cast<HostId>(host), endpoints_));
  }
}

Network::~Network() = default;

Transport& Network::at(HostId host) { return *endpoints_[host]; }

void Network::cut(HostId a, HostId b) {
  endpoints_[a]->lose(b);
  endpoints_[b]->lose(a);
}

void Network::isolate(HostId host) {
  for (unsigned other = 0; other < endpoints_.size(); ++other) {
    if (other != host) cut(host, static_cast<HostId>(other));
  }
}

}  // namespace xenspan::dsm::sim
