// How many buffers each end of a lane has.
//
// An owner's end of a lane receives the answers to the requests that its thread has under way: at
// most sixteen (320 on the service lane), each a grant or an acknowledgement from one peer,
// or both. A peer's end receives those requests; on the service lane also forwards and
// invalidations, at most one for each request under way in the whole domain. Up to a few hosts the
// windows cover all of that, so that no sender ever waits for credit. Pure. Internal to
// transport/verbs.
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

// Bytes of a receive buffer, and of a frame on its way with the envelope behind it: whole cache
// lines.
inline constexpr std::uint32_t kReceiveStride = 128;
inline constexpr std::uint32_t kBounceStride = 4096 + kReceiveStride;
inline constexpr std::uint32_t kBounceBytes = 4096 + kEnvelopeBytes;
static_assert(kEnvelopeBytes <= kReceiveStride);
inline constexpr std::uint32_t kMostBuffers = 4096;

inline LinkShape shape_of(bool own, Lane lane, unsigned lanes, unsigned hosts) {
  const bool service = lane == kServiceLane;
  const std::uint32_t window =
      service ? Requests::kServicePlaces + Requests::kAheadPlaces : Requests::kWindow;
  if (own) return {4 * window, 2 * window, 0, 256};
  const std::uint32_t places =
      lanes * Requests::kWindow + Requests::kServicePlaces + Requests::kAheadPlaces;
  const std::uint32_t buffers =
      service ? std::min(places * (hosts + 1) + window, kMostBuffers) : 4 * window;
  return {buffers, 0, 2 * window, 256};
}

}  // namespace xenspan::dsm::verbs
