// The messages of the protocol, as the state machine sees them. How they look on a wire:
// dsm-rdma/wire.h.
//
// Ivy with a fixed distributed manager (Li & Hudak, TOCS 7(4) 1989, section 3.1), with three
// changes: data goes from owner straight to requester, invalidations go out in parallel and are
// acknowledged to the requester, and the manager puts a gfn's requests in order without waiting for
// any of them: what it sends names the version it is about, and a host that has not got so far
// keeps it until it has.
#pragma once

#include "dsm-rdma/types.h"

namespace xenspan::dsm::ivy {

enum class Kind : std::uint8_t {
  kReadRequest = 1,   // requester -> manager: a read copy is wanted
  kWriteRequest = 2,  // requester -> manager: the exclusive right is wanted
  kReadForward = 3,   // manager -> owner: send a read copy to `requester`, keep a read copy
  kWriteForward =
      4,  // manager -> owner: give the page up, send it to `requester`; `acks` goes with it
  kInvalidate = 5,  // manager -> holder of a read copy: give it up, acknowledge to `requester`
  kGrant = 6,  // owner (or manager, for an upgrade) -> requester; `payload` says what comes with it
  kInvalidateAck = 7,  // holder -> requester
};

// What accompanies a kGrant.
enum class Payload : std::uint8_t {
  kNone = 0,  // the requester's copy is current (upgrade)
  kPage = 1,  // 4096 bytes follow; they are in the requester's frame before the machine sees the
              // message
  kZero = 2,  // the page is all zeros; the receiver's frame is cleared before the machine sees the
              // message
};

struct Message {
  Kind kind{};
  Payload payload = Payload::kNone;
  Right right = Right::kInvalid;  // kGrant: the right granted
  bool discard =
      false;  // kWriteRequest and what follows from it: contents are not wanted (page becomes zero)
  HostId from = 0;
  HostId to = 0;
  HostId requester = 0;
  std::uint16_t acks = 0;   // kWriteForward, kGrant: acknowledgements the requester has to collect
  std::uint16_t reads = 0;  // to an owner: read forwards sent to it before, in this version
  std::uint16_t version = 0;  // forwards, kInvalidate: of the right that is asked for; kGrant: of
                              // the right granted
  Lane lane = kServiceLane;   // the requester's lane for kGrant and kInvalidateAck
  std::uint32_t txn =
      0;  // requester's number of this request, echoed in everything that follows from it
  Gfn gfn = 0;

  friend bool operator==(const Message&, const Message&) = default;
};
static_assert(sizeof(Message) == 32);

}  // namespace xenspan::dsm::ivy
