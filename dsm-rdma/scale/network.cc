#include "dsm-rdma/scale/network.h"

#include <algorithm>

#include "dsm-rdma/wire.h"

namespace xenspan::dsm::scale {

Time Costs::round_trip_ns() const {
  return 2 * (send_ns + latency_ns + receive_ns) + on_link(wire::kMessageBytes) +
         on_link(wire::kMessageBytes + kPageSize);
}

Network::Network(const Costs& costs, unsigned hosts, std::uint64_t seed)
    : costs_(costs), random_(seed), out_free_(hosts, 0), in_free_(hosts, 0) {}

Time Network::arrival(Time now, HostId from, HostId to, std::size_t bytes) {
  const Time busy = costs_.on_link(bytes);
  const Time leaves = std::max(now, out_free_[from]);
  out_free_[from] = leaves + busy;
  const auto most = static_cast<unsigned>(static_cast<double>(costs_.latency_ns) * costs_.jitter);
  const Time head = leaves + costs_.latency_ns + random_.below(most + 1);
  in_free_[to] = std::max(head, in_free_[to]) + busy;
  return in_free_[to];
}

}  // namespace xenspan::dsm::scale
