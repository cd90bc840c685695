#include "dsm-rdma/ivy/slots.h"

#include <bit>

namespace xenspan::dsm::ivy {
namespace {

using Phase = SlotState::Phase;

Message about(Kind kind, HostId self, HostId to, unsigned number, Moves moves) {
  Message message{.kind = kind, .from = self, .to = to, .requester = self};
  message.moves = moves;
  message.gfn = number;
  return message;
}

SlotStep arrive(SlotState& slot, HostId self, unsigned number) {
  if (!slot.counted || slot.arrived != slot.expected) return {};
  slot.phase = Phase::kSettled;
  slot.counted = false;
  slot.expected = slot.arrived = 0;
  return {SlotStep::Kind::kArrived, about(Kind::kSlotMoved, self, self, number, slot.moves)};
}

Verdict on_ask(SlotState& slot, HostId self, const Message& ask, SlotStep& step) {
  if (ask.requester == self) return Verdict::kIllegal;
  if (slot.manager != self) {
    if (!newer(slot.moves, ask.moves)) return Verdict::kIllegal;
    Message message = ask;
    message.from = self;
    message.to = slot.manager;
    message.moves = slot.moves;
    step = {SlotStep::Kind::kSend, message};
    return Verdict::kAccepted;
  }
  if (slot.phase == Phase::kComing) {
    slot.asked |= mask_of(ask.requester);
    return Verdict::kAccepted;
  }
  slot.manager = ask.requester;
  slot.moves = next_move(slot.moves);
  slot.phase = Phase::kGoing;
  step = {SlotStep::Kind::kHandOver,
          about(Kind::kRow, self, slot.manager, static_cast<unsigned>(ask.gfn), slot.moves)};
  return Verdict::kAccepted;
}

}  // namespace

SlotStep take_slot(SlotState& slot, HostId self, unsigned number) noexcept {
  if (slot.manager == self || slot.phase != Phase::kSettled) return {};
  const SlotStep step{SlotStep::Kind::kSend,
                      about(Kind::kSlotAsk, self, slot.manager, number, slot.moves)};
  slot.before = slot.manager;
  slot.moves_before = slot.moves;
  slot.manager = self;
  slot.phase = Phase::kComing;
  slot.counted = false;
  slot.expected = slot.arrived = 0;
  return step;
}

Verdict on_slot_message(SlotState& slot, HostId self, const Message& message,
                        SlotStep& step) noexcept {
  const auto number = static_cast<unsigned>(message.gfn);
  switch (message.kind) {
    case Kind::kSlotOffer: step = take_slot(slot, self, number); return Verdict::kAccepted;
    case Kind::kSlotAsk: return on_ask(slot, self, message, step);
    case Kind::kSlotRows:
      if (slot.phase != Phase::kComing || slot.counted || message.txn < slot.arrived ||
          (slot.arrived != 0 && message.moves != slot.moves)) {
        return Verdict::kIllegal;
      }
      slot.counted = true;
      slot.expected = message.txn;
      slot.moves = message.moves;
      step = arrive(slot, self, number);
      return Verdict::kAccepted;
    case Kind::kSlotMoved:
      if (message.requester != message.from || message.from == self) return Verdict::kIllegal;
      learn(slot, self, message.requester, message.moves);
      return Verdict::kAccepted;
    default: return Verdict::kIllegal;
  }
}

bool expects_row(SlotState& slot, HostId self, const Message& row) noexcept {
  if (slot.phase != Phase::kComing || slot.manager != self) return false;
  if (slot.arrived != 0 || slot.counted) {
    return row.moves == slot.moves && !(slot.counted && slot.arrived == slot.expected);
  }
  slot.moves = row.moves;
  return true;
}

SlotStep row_arrived(SlotState& slot, HostId self, unsigned number) noexcept {
  ++slot.arrived;
  return arrive(slot, self, number);
}

Message rows_sent(SlotState& slot, HostId self, unsigned number, std::uint32_t rows) noexcept {
  Message message = about(Kind::kSlotRows, self, slot.manager, number, slot.moves);
  message.txn = rows;
  slot.phase = Phase::kSettled;
  return message;
}

bool next_asked(SlotState& slot, HostId self, unsigned number, Message& ask) noexcept {
  if (slot.asked == 0 || slot.phase == Phase::kComing) return false;
  const auto host = static_cast<HostId>(std::countr_zero(slot.asked));
  slot.asked &= slot.asked - 1;
  ask = about(Kind::kSlotAsk, host, self, number, static_cast<Moves>(slot.moves - 1));
  return true;
}

void learn(SlotState& slot, HostId self, HostId manager, Moves moves) noexcept {
  if (slot.phase != Phase::kSettled || slot.manager == self || !newer(moves, slot.moves)) return;
  slot.manager = manager;
  slot.moves = moves;
}

}  // namespace xenspan::dsm::ivy
