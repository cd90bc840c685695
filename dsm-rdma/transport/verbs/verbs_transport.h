// Transport over RDMA verbs: for each ordered pair of hosts and lane one reliable connected queue
// pair.
//
// A page is written by the sender's device straight into memory of the receiver, together with the
// 64-byte message that names it; all other messages are inline sends into receive buffers that are
// posted beforehand. On hardware neither the hypervisor nor the kernel is entered: work is posted
// and completions are polled in user memory; the kernel is asked only to sleep (completion
// channels).
//
// Where a page lands. With pin_frames the whole of register_frames() is registered, and pages go
// from frame to frame without a copy. Otherwise they land in registered bounce frames and are
// copied once at each end; that is for backends whose frames cannot be registered (foreign mappings
// of a Xen guest) or whose memory comes and goes (a sparse window of which pages are given back: a
// registration would keep the old memory).
//
// Set-up. Queue pair numbers travel over an authenticated SecureStream between the two slices
// (kPurposeVerbs), so there is no queue pair that a stranger could connect to. The stream stays
// open: when its peer's process or host dies, the kernel's TCP says so.
//
// Flow control: a sender knows how many receive buffers its peer has and, by a counter that the
// peer writes into its memory, how many messages have been taken from them; it never sends into
// nothing. What finds no buffer waits at its sender, and nobody waits for it (shapes.h).
//
// Threading: as Transport says. Ownership: the transport owns its device, queue pairs, buffers and
// streams; the Acceptor is borrowed and must outlive it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "dsm-rdma/transport/tcp/secure_stream.h"
#include "dsm-rdma/transport/tcp/tcp_transport.h"
#include "dsm-rdma/transport/transport.h"

namespace xenspan::dsm::verbs {

// The streams that queue pairs are agreed on by. Lanes of TCP and the lines of user-mode domains
// have other numbers.
inline constexpr std::uint8_t kPurposeVerbs = 16;

struct VerbsConfig {
  // By HostId, self included; at most Acceptor::hosts(). No others can join.
  std::vector<tcp::Peer> hosts;
  Gfn pages = 0;                        // bound for gfns in messages
  unsigned lanes = 8;                   // as tcp::MeshConfig
  int timeout_ms = 15000;               // until every queue pair stands
  PatienceLimits wait = kVcpuPatience;  // how long a faulting thread looks before it sleeps
  unsigned serve_spin_us = 0;           // how long the service thread polls
  unsigned dead_after_ms = 10000;

  std::string device;        // "mlx5_0"; empty: the one that has the address peers are reached by
  unsigned device_port = 0;  // 0: by address, as above
  int gid_index = -1;        // -1: by address, as above
  unsigned service_level =
      0;  // InfiniBand service level / RoCE priority: for performance isolation
  unsigned traffic_class = 0;  // RoCE v2: the DSCP and ECN byte
  // Receive buffers of a peer's end of the service lane; 0: as many as are of use. For tests.
  unsigned service_buffers = 0;
  // Register the frames themselves. Only for a backend whose drop_frame() keeps the memory and
  // clears it, and whose frames keep still. Locks the whole of the domain's memory. A page that was
  // sent may be read from its frame until its requester has answered; the protocol changes it no
  // sooner.
  bool pin_frames = false;
};

// Makes all queue pairs to and from all peers; every slice of the domain calls it at about the same
// time. Blocks. Self, secret and epoch are the acceptor's; a domain with encryption is refused,
// since RDMA has none. The error names the host, or the device and what to configure.
Result<std::unique_ptr<Transport>> connect_verbs(const VerbsConfig& config,
                                                 tcp::Acceptor& acceptor);

}  // namespace xenspan::dsm::verbs
