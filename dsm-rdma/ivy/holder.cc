// The host that has a right and is asked by the manager to share it or to give it up.
// The right is taken out of the guest's mapping first; only then does any message tell another host
// about it.
#include "dsm-rdma/ivy/roles.h"

namespace xenspan::dsm::ivy {
namespace {

// Only the page's manager asks, only a host that holds the page is asked, and never on its own
// behalf.
bool may_be_asked(const Context& at, const Message& asked) {
  return asked.from == at.view.manager && asked.requester != at.view.self &&
         right_of(at.page, at.view) != Right::kInvalid;
}

// What goes from here to the requester, with the marks of its request.
Message answer(const Context& at, const Message& asked, Kind kind) {
  Message message = asked;
  message.kind = kind;
  message.from = at.view.self;
  message.to = asked.requester;
  message.right = Right::kInvalid;
  message.payload = Payload::kNone;
  message.acks = 0;
  return message;
}

void give_up(const Context& at, const Message& asked) {
  set_access(at.page, Access::kInvalid);
  at.steps.push(Step::Kind::kWithdraw, asked);
  if (asked.discard) at.steps.push(Step::Kind::kDropFrame, asked);
}

}  // namespace

Verdict hold_read_forward(const Context& at, const Message& forward) noexcept {
  if (!may_be_asked(at, forward) || forward.acks != 0 || forward.discard) return Verdict::kIllegal;
  if (right_of(at.page, at.view) == Right::kExclusive) {
    set_access(at.page, Access::kShared);
    at.steps.push(Step::Kind::kProtect, forward);
  }
  Message grant = answer(at, forward, Kind::kGrant);
  grant.right = Right::kShared;
  grant.payload = Payload::kPage;
  at.steps.push(Step::Kind::kSend, grant);
  return Verdict::kAccepted;
}

Verdict hold_write_forward(const Context& at, const Message& forward) noexcept {
  if (!may_be_asked(at, forward) || forward.acks >= kMaxHosts) return Verdict::kIllegal;
  give_up(at, forward);
  Message grant = answer(at, forward, Kind::kGrant);
  grant.right = Right::kExclusive;
  grant.payload = forward.discard ? Payload::kZero : Payload::kPage;
  grant.acks = forward.acks;
  at.steps.push(Step::Kind::kSend, grant);
  return Verdict::kAccepted;
}

Verdict hold_invalidate(const Context& at, const Message& invalidate) noexcept {
  if (!may_be_asked(at, invalidate)) return Verdict::kIllegal;
  // The exclusive right has contents that exist nowhere else: it is forwarded, never invalidated.
  if (right_of(at.page, at.view) == Right::kExclusive) return Verdict::kIllegal;
  give_up(at, invalidate);
  at.steps.push(Step::Kind::kSend, answer(at, invalidate, Kind::kInvalidateAck));
  return Verdict::kAccepted;
}

}  // namespace xenspan::dsm::ivy
