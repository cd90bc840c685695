// The state machine by which a slot changes its manager: pure and deterministic, like the one of a
// page (machine.h), and beside it.
//
// Whoever wants a slot asks its manager, by way of hosts that were it if need be. The manager stops
// at once (from then on it passes on what comes for the slot's pages), sends the row of each page
// that has one, then their number. The new manager serves a page as soon as its row is there, and
// all others once it has counted all rows; until then their requests are early. Then it tells
// everybody. No order between messages is assumed. One SlotState a slot and host; the caller
// serialises calls for one slot. A zeroed SlotState with its manager filled in is the start state.
#pragma once

#include "dsm-rdma/ivy/machine.h"

namespace xenspan::dsm::ivy {

struct SlotState {
  enum class Phase : std::uint8_t {
    kSettled,  // `manager` is who to send to
    kComing,   // self has asked for it, and counts as its manager already; rows may be missing
    kGoing,    // self has given it to `manager`, and has not sent all rows yet
  };
  HostId manager = 0;
  Moves moves = 0;  // when that manager got it; kComing: of the manager before until a row is here
  Phase phase = Phase::kSettled;
  HostId before = 0;                        // kComing: the manager that was asked for it, ..
  Moves moves_before = 0;                   // .. and when that got it
  bool counted = false;                     // kComing: `expected` is known
  std::uint32_t expected = 0, arrived = 0;  // kComing: rows
  HostMask asked = 0;                       // kComing: who has asked for it meanwhile
};

struct SlotStep {
  enum class Kind : std::uint8_t {
    kNothing,
    kSend,      // `message`
    kHandOver,  // take_row() of every page of the slot, for `message.to`; then rows_sent()
    kArrived,   // it is this host's: look at what was early, and tell everybody with `message`
  };
  Kind kind = Kind::kNothing;
  Message message{};
};

// This host wants the slot. kSend: it is under way; the state has changed. kNothing: this host has
// it or is getting it, or has not sent all rows of the time before yet (phase kGoing: ask again
// later).
SlotStep take_slot(SlotState& slot, HostId self, unsigned number) noexcept;

// A kSlotOffer, kSlotAsk, kSlotRows or kSlotMoved for this host. kAccepted, or kIllegal with
// nothing changed. A kSlotOffer is a hint: take_slot() is called for it.
Verdict on_slot_message(SlotState& slot, HostId self, const Message& message,
                        SlotStep& step) noexcept;

// A kRow has come: before the page's machine gets it. false: illegal.
bool expects_row(SlotState& slot, HostId self, const Message& row) noexcept;
// .. and after it was accepted.
SlotStep row_arrived(SlotState& slot, HostId self, unsigned number) noexcept;

// After kHandOver: the last message to the new manager, kSlotRows.
Message rows_sent(SlotState& slot, HostId self, unsigned number, std::uint32_t rows) noexcept;

// The slot has arrived, and somebody has asked for it meanwhile: a kSlotAsk to be handled now. Call
// until it is false.
bool next_asked(SlotState& slot, HostId self, unsigned number, Message& ask) noexcept;

// Another host says who manages the slot: the newer of the two is kept.
void learn(SlotState& slot, HostId self, HostId manager, Moves moves) noexcept;

}  // namespace xenspan::dsm::ivy
