// How many buffers each end of a lane has, and what that takes of the device and of locked memory.
//
// An owner's end of a lane receives the answers to the requests that its thread has under way: at
// most sixteen (320 on the service lane), each a grant or an acknowledgement from one peer,
// or both. A peer's end receives those requests. For both the buffers cover everything, and what
// has been taken but not yet told (flow.h), so that nobody waits for credit there.
//
// On the service lane a peer's end also receives forwards and invalidations: at most one for each
// request under way in the whole domain, which no device has buffers for when there are many hosts.
// There the sender keeps what finds no credit (Backlog, flow.h), in memory that covers the bound;
// the number of buffers decides how fast it is, never whether it goes on. Pure. Internal to
// transport/verbs and its callers that reserve memory for it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dsm-rdma/requests.h"
#include "dsm-rdma/transport/verbs/envelope.h"

namespace xenspan::dsm::verbs {

struct LinkShape {
  std::uint32_t buffers = 0;  // receive buffers
  std::uint32_t bounce = 0;   // frames that pages from the peer land in
  std::uint32_t staging = 0;  // frames that pages to the peer are copied to
  std::uint32_t sends = 0;    // room for work requests
};

// A domain's size, and the receive buffers of a peer's end of the service lane.
struct MeshShape {
  unsigned lanes = 0, hosts = 0;
  std::uint32_t service_buffers = 0;
};

// Bytes of a receive buffer, and of a frame on its way with the envelope behind it: whole cache
// lines.
inline constexpr std::uint32_t kReceiveStride = 128;
inline constexpr std::uint32_t kBounceStride = 4096 + kReceiveStride;
inline constexpr std::uint32_t kBounceBytes = 4096 + kEnvelopeBytes;
static_assert(kEnvelopeBytes <= kReceiveStride);
inline constexpr std::uint32_t kMostServiceBuffers = 2560, kFewestServiceBuffers = 32;
inline constexpr std::uint32_t kSends = 256;
// Requests of one slice that have their answers on the service lane.
inline constexpr std::uint32_t kServiceWindow = Requests::kServicePlaces + Requests::kFewAheadPlaces;

// Messages that one peer can have under way to a peer's end of the service lane: a forward or an
// invalidation for each request of the domain, its own requests on that lane, and what it says of
// its frames.
constexpr std::uint32_t service_bound(unsigned lanes, unsigned hosts) {
  const std::uint32_t places = lanes * Requests::kWindow + kServiceWindow;
  return places * hosts + kServiceWindow + 1;
}

constexpr LinkShape shape_of(bool own, Lane lane, const MeshShape& mesh) {
  const bool service = lane == kServiceLane;
  const std::uint32_t window = service ? kServiceWindow : Requests::kWindow;
  if (own) return {service ? 3 * window : 4 * window, 2 * window, 0, kSends};
  return {service ? mesh.service_buffers : 2 * window, 0, 2 * window, kSends};
}

// Completions that the service thread's queue has to hold: every receive buffer of its ends may
// complete at once.
constexpr std::uint32_t service_entries(const MeshShape& mesh) {
  std::uint32_t entries = shape_of(true, kServiceLane, mesh).buffers;
  for (unsigned lane = 0; lane <= mesh.lanes; ++lane)
    entries += shape_of(false, static_cast<Lane>(lane), mesh).buffers;
  return entries * (mesh.hosts - 1);
}

// The buffers of a peer's end of the service lane on a device with these limits: as many as can be
// of use. 0: not even a few fit.
constexpr std::uint32_t service_buffers(unsigned lanes, unsigned hosts, std::uint32_t most_entries,
                                        std::uint32_t most_buffers) {
  const std::uint32_t others = service_entries({lanes, hosts, 0});
  if (others >= most_entries) return 0;
  // Four thirds: what has been taken but not yet told counts as taken up.
  const std::uint32_t useful = (service_bound(lanes, hosts) + 2) / 3 * 4;
  const std::uint32_t fit =
      std::min({useful, kMostServiceBuffers, most_buffers, (most_entries - others) / (hosts - 1)});
  return fit < kFewestServiceBuffers ? 0 : fit;
}

// The most hosts that such a device can reach; at least 1.
constexpr unsigned most_hosts(unsigned lanes, std::uint32_t most_entries,
                              std::uint32_t most_buffers) {
  unsigned hosts = 1;
  while (hosts < kMaxHosts && service_buffers(lanes, hosts + 1, most_entries, most_buffers) != 0)
    ++hosts;
  return hosts;
}

// Locked memory of a slice without registered frames, at most: its buffers, and the queues of
// devices whose libraries keep them in user memory (a work request of 256 bytes, a receive of 64, a
// completion of 128).
constexpr std::uint64_t locked_bytes(unsigned lanes, unsigned hosts) {
  if (hosts < 2) return 0;
  const MeshShape mesh{lanes, hosts, kMostServiceBuffers};
  std::uint64_t bytes = 0;
  for (const bool own : {true, false}) {
    for (unsigned lane = 0; lane <= lanes; ++lane) {
      const LinkShape shape = shape_of(own, static_cast<Lane>(lane), mesh);
      bytes += std::uint64_t{shape.staging + shape.bounce} * kBounceStride;
      bytes += std::uint64_t{shape.buffers} * (kReceiveStride + 64 + 128);
      bytes += std::uint64_t{shape.sends} * (256 + 128) + 4 * 4096;
    }
  }
  return bytes * (hosts - 1) + (std::uint64_t{4} << 20);
}

}  // namespace xenspan::dsm::verbs
