// Transport over TCP: for each ordered pair of hosts and lane one connection, made by the lane's
// owner.
//
// The owner's end of lane k >= 1 is read by the thread that has borrowed lane k; the peers' ends
// and both ends of lane 0 are read by serve(). A message is 64 bytes (dsm-rdma/wire.h), followed by
// 4096 bytes when it carries a page. System calls of a remote fault: sendmsg, then recv while
// polling, or epoll_wait and recv once asleep; at the owner epoll_pwait2, recv, sendmsg. Threading:
// as Transport says. Ownership: the transport owns its streams; the Acceptor is borrowed and must
// outlive it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "dsm-rdma/patience.h"
#include "dsm-rdma/transport/tcp/secure_stream.h"
#include "dsm-rdma/transport/transport.h"

namespace xenspan::dsm::tcp {

struct Peer {
  std::string name;     // for error messages; empty: this number is nobody's
  std::string address;  // numeric; unused for self
  std::uint16_t port = 0;
  // Of the hosts that have had this number in the domain, below 2^24: an earlier one's connections
  // are refused.
  std::uint32_t incarnation = 0;
};

inline constexpr unsigned kMaxLanes = 63;

struct MeshConfig {
  // By HostId, self included; at most Acceptor::hosts(), which bounds the numbers of all that may
  // ever join.
  std::vector<Peer> hosts;
  Gfn pages = 0;       // bound for gfns in messages
  unsigned lanes = 8;  // lanes 1 .. lanes beside lane 0; the same on all hosts; at most kMaxLanes
  int timeout_ms = 15000;               // until every connection stands
  PatienceLimits wait = kVcpuPatience;  // how long a faulting thread looks before it sleeps
  unsigned serve_spin_us =
      0;  // how long the service thread polls; costs a core's time, so off unless cores are free
  unsigned dead_after_ms = 10000;  // a peer that acknowledges nothing for this long is lost
};

// Makes all connections to and from all peers; every slice of the domain calls it at about the same
// time. Blocks. Self, secret, epoch and encryption are the acceptor's. The error names the host
// that is missing. Afterwards the acceptor refuses further lanes.
Result<std::unique_ptr<Transport>> connect_mesh(const MeshConfig& config, Acceptor& acceptor);

// A host joins: makes this slice's connections to it and takes the ones it makes (by its own
// connect_mesh(), at about the same time). `mesh` was made by connect_mesh() with this acceptor,
// and the host's number is below Acceptor::hosts(). Blocks; any thread but the service thread, one
// call at a time. What fails changes nothing. A peer goes by Transport::remove_peer().
Status add_peer(Transport& mesh, Acceptor& acceptor, HostId host, const Peer& peer,
                int timeout_ms = 15000);

}  // namespace xenspan::dsm::tcp
