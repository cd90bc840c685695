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
  // A host gives up a read copy of its own accord (machine.h: on_release).
  kRelease = 8,   // holder -> manager: its guest cannot touch the page any more
  kReleased = 9,  // manager -> holder; `right`: kInvalid: it is out of the copyset; kShared: it has
                  // to keep the page, being its owner; kExclusive: a writer was first, and the copy
                  // is being taken away
  kOffer = 10,    // holder -> heir: ask for the exclusive right to this page, I have to go. A hint:
                  // it may be ignored, and is then repeated. Not for the machine
  // The manager of a slot changes (slots.h). But for kRow, `gfn` is the number of a slot.
  kRow = 11,        // old manager -> new: the directory's row of one page: requester the owner,
                    // copyset_of(), version, reads; right: kShared where a lone owner may be a
                    // reader. Also what hosts claim after a loss (rebuild.h)
  kSlotOffer = 12,  // manager -> heir: ask for this slot, I have to go. A hint
  kSlotAsk = 13,    // new manager -> manager: give me this slot
  kSlotRows = 14,   // old manager -> new: `txn` rows were sent, no more will come
  kSlotMoved = 15,  // new manager -> all: `requester` manages this slot
};
constexpr bool is_about_slot(Kind kind) { return kind >= Kind::kSlotOffer; }

// Not for a page's machine alone: the engine deals with these (engine_members.cc).
constexpr bool is_about_members(Kind kind) { return kind == Kind::kOffer || kind >= Kind::kRow; }

// What may be under way to or from a host that has left (membership.h): news and hints. It need not
// arrive.
constexpr bool may_be_late(Kind kind) {
  return kind == Kind::kSlotMoved || kind == Kind::kOffer || kind == Kind::kSlotOffer;
}

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
  // From and to managers: how often the page's slot had changed its manager when the one meant here
  // became it (types.h: Moves).
  Moves moves = 0;
  std::uint32_t txn =
      0;  // requester's number of this request, echoed in everything that follows from it
  Gfn gfn = 0;

  friend bool operator==(const Message&, const Message&) = default;
};
static_assert(sizeof(Message) == 32);

// The copyset in a kRow, where other messages have what concerns one request.
constexpr HostMask copyset_of(const Message& row) {
  return HostMask{row.acks} << 48 | HostMask{row.lane} << 32 | row.txn;
}
constexpr void set_copyset(Message& row, HostMask hosts) {
  row.acks = static_cast<std::uint16_t>(hosts >> 48);
  row.lane = static_cast<Lane>(hosts >> 32);
  row.txn = static_cast<std::uint32_t>(hosts);
}

}  // namespace xenspan::dsm::ivy
