// A network inside one process, for tests that run several real engines: seeded delays, any
// reordering, cuts.
//
// Each host's Transport is at(host). A message arrives after a delay that depends on the seed and
// on the message alone, so the mix of early and late messages is the same in every run; which
// thread runs when is up to the machine. Messages overtake each other even within a lane, which is
// more than a real transport does: the protocol relies on no order. Nothing is lost unless a cut is
// made. Pages travel in memory of their own and are placed by the receiver.
//
// Threading: as Transport says; cut() and isolate() from any thread. It allocates: it is for tests,
// not for products. Ownership: the network owns its transports and must outlive every engine that
// uses them; stop them before it goes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "dsm-rdma/transport/transport.h"

namespace xenspan::dsm::sim {

struct NetworkConfig {
  unsigned hosts = 2;
  unsigned lanes = 4;  // lanes 1 .. lanes to lend; at most 63
  std::uint64_t seed = 1;
  unsigned min_delay_us = 0, max_delay_us = 50;
};

class Endpoint;

class Network {
 public:
  explicit Network(const NetworkConfig& config);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  Transport& at(HostId host);
  // The two hosts no longer reach each other; what is under way between them is lost; both are told
  // (peer_lost).
  void cut(HostId a, HostId b);
  // Cuts a host off from all others.
  void isolate(HostId host);

 private:
  std::vector<std::unique_ptr<Endpoint>> endpoints_;
};

}  // namespace xenspan::dsm::sim
