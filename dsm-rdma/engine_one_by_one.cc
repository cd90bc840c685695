// The engine's part of one_by_one.h: what goes out is looked at, and copies of acknowledgements
// come in. Only where Feature::kParallel is off.
#include "dsm-rdma/engine_core.h"

namespace xenspan::dsm {

// Whether the message is to go now.
bool EngineCore::in_turn(PageEntry& entry, const ivy::Message& message, Event& event) noexcept {
  if (message.kind == ivy::Kind::kInvalidate) return one_by_one_->admit(message);
  if (message.kind != ivy::Kind::kInvalidateAck) return true;
  const HostId manager = view(message.gfn).manager;
  if (manager == message.to) return true;  // it looks at its own acknowledgements
  if (manager == config_.self) {
    ivy::Message next;
    if (one_by_one_->next(message, next)) (void)send_now(entry, next, event);
    return true;
  }
  ivy::Message copy = message;
  copy.to = manager;
  copy.lane = kServiceLane;
  (void)send_now(entry, copy, event);
  return true;
}

// An acknowledgement has come to the manager. true: it is a copy, and not for the machine.
bool EngineCore::take_turn(PageEntry& entry, const ivy::Message& ack, Outbox& outbox) noexcept {
  Event event(outbox);
  ivy::Steps steps;
  ivy::Message next;
  if (one_by_one_->next(ack, next) && send_now(entry, next, event))
    (void)feed_all(entry, event, steps, true);
  return ack.requester != config_.self;
}

}  // namespace xenspan::dsm
