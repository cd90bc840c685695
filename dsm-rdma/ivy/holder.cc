// The host that has a right and is asked by the manager to share it or to give it up.
// The right is taken out of the guest's mapping first; only then does any message tell another host
// about it.
//
// The manager does not wait for a request to end before it serves the next, and messages may
// overtake each other. So what it asks names the version of the right it is about: a host that is
// still waiting for that right keeps the message, and so does an owner that has not answered yet
// all read forwards that were sent before a message that takes the page away.
#include "dsm-rdma/ivy/roles.h"

namespace xenspan::dsm::ivy {
namespace {

// Whether the right that is asked for is here now. Only a manager of the page asks, and never on
// behalf of this host.
template <typename Page>
Verdict judge(const Context<Page>& at, const Message& asked) {
  if (!from_manager(at.view, asked) || asked.requester == at.view.self) return Verdict::kIllegal;
  const Page& page = at.page;
  const Right held = right_of(page, at.view);
  if (held != Right::kInvalid && asked.version == page.held_version) {
    if (asked.kind == Kind::kReadForward || asked.reads == page.reads_served) {
      return Verdict::kAccepted;
    }
    return asked.reads > page.reads_served ? Verdict::kEarly : Verdict::kIllegal;
  }
  // About the right that this host has asked for. A reader will be no owner, but of a page that
  // nobody had touched (its manager may have heard before this host that the home leaves).
  const bool forward = asked.kind != Kind::kInvalidate;
  const bool owns = asked.version == next_version<Page>(0);
  switch (pending_of(page)) {
    case Pending::kNothing:
    case Pending::kRelease: return Verdict::kIllegal;
    case Pending::kRead: return forward && !owns ? Verdict::kIllegal : Verdict::kEarly;
    case Pending::kWrite:
    case Pending::kDiscard: return Verdict::kEarly;
  }
  return Verdict::kIllegal;
}

// What goes from here to the requester, with the marks of its request.
template <typename Page>
Message answer(const Context<Page>& at, const Message& asked, Kind kind) {
  Message message = asked;
  message.kind = kind;
  message.from = at.view.self;
  message.to = asked.requester;
  message.right = Right::kInvalid;
  message.payload = Payload::kNone;
  message.acks = 0;
  message.reads = 0;
  return message;
}

template <typename Page>
void give_up(const Context<Page>& at, const Message& asked, const Message& answer) {
  const bool released = pending_of(at.page) == Pending::kRelease;
  set_access(at.page, Access::kInvalid);
  at.steps.push(Step::Kind::kWithdraw, asked);
  if (asked.discard) at.steps.push(Step::Kind::kDropFrame, asked);
  at.steps.push(Step::Kind::kSend, answer);
  if (released) end_release(at, asked.gfn);
}

}  // namespace

template <typename Page>
Verdict hold_read_forward(const Context<Page>& at, const Message& forward) noexcept {
  if (forward.acks != 0 || forward.discard) return Verdict::kIllegal;
  if (const Verdict verdict = judge(at, forward); verdict != Verdict::kAccepted) return verdict;
  if (right_of(at.page, at.view) == Right::kExclusive) {
    set_access(at.page, Access::kShared);
    at.steps.push(Step::Kind::kProtect, forward);
  }
  at.page.reads_served = (at.page.reads_served + 1) & (Page::kHosts - 1);
  Message grant = answer(at, forward, Kind::kGrant);
  grant.right = Right::kShared;
  grant.payload = Payload::kPage;
  at.steps.push(Step::Kind::kSend, grant);
  return Verdict::kAccepted;
}

template <typename Page>
Verdict hold_write_forward(const Context<Page>& at, const Message& forward) noexcept {
  if (forward.acks >= Page::kHosts) return Verdict::kIllegal;
  if (const Verdict verdict = judge(at, forward); verdict != Verdict::kAccepted) return verdict;
  Message grant = answer(at, forward, Kind::kGrant);
  grant.right = Right::kExclusive;
  grant.payload = forward.discard ? Payload::kZero : Payload::kPage;
  grant.acks = forward.acks;
  grant.version = next_version<Page>(forward.version);
  give_up(at, forward, grant);
  return Verdict::kAccepted;
}

template <typename Page>
Verdict hold_invalidate(const Context<Page>& at, const Message& invalidate) noexcept {
  if (const Verdict verdict = judge(at, invalidate); verdict != Verdict::kAccepted) return verdict;
  // The exclusive right has contents that exist nowhere else: it is forwarded, never invalidated.
  if (right_of(at.page, at.view) == Right::kExclusive) return Verdict::kIllegal;
  give_up(at, invalidate, answer(at, invalidate, Kind::kInvalidateAck));
  return Verdict::kAccepted;
}

template Verdict hold_read_forward(const Context<PageState>&, const Message&) noexcept;
template Verdict hold_write_forward(const Context<PageState>&, const Message&) noexcept;
template Verdict hold_invalidate(const Context<PageState>&, const Message&) noexcept;
template Verdict hold_read_forward(const Context<WidePageState>&, const Message&) noexcept;
template Verdict hold_write_forward(const Context<WidePageState>&, const Message&) noexcept;
template Verdict hold_invalidate(const Context<WidePageState>&, const Message&) noexcept;

}  // namespace xenspan::dsm::ivy
