// The host that wants a right: asks the manager, collects the grant and the acknowledgements, maps.
#include "dsm-rdma/ivy/roles.h"

namespace xenspan::dsm::ivy {
namespace {

Step::Kind grant_step(Right right) {
  return right == Right::kExclusive ? Step::Kind::kGrantExclusive : Step::Kind::kGrantShared;
}

// Whether an answer with this txn belongs to the request under way here.
template <typename Page>
Verdict answers_pending(const Page& page, const View& view, const Message& answer) {
  if (answer.requester != view.self) return Verdict::kIllegal;
  if (pending_of(page) == Pending::kNothing || low_bits(answer.txn) != page.txn)
    return Verdict::kDuplicate;
  return pending_of(page) == Pending::kRelease ? Verdict::kIllegal : Verdict::kAccepted;
}

// The contents a grant brings fit what is held here: a mapped frame is never overwritten, and
// nobody is told to go on with contents that he does not have.
template <typename Page>
bool contents_fit(const Page& page, const View& view, const Message& grant) {
  const Right held = right_of(page, view);
  switch (grant.payload) {
    case Payload::kNone:
      return held == Right::kShared && from_manager(view, grant) &&
             grant.version == next_version<Page>(page.held_version);
    case Payload::kPage:
      return held == Right::kInvalid && grant.from != view.self &&
             pending_of(page) != Pending::kDiscard;
    case Payload::kZero:
      // From itself only as the manager of a page that nobody has touched.
      return held == Right::kInvalid &&
             (grant.from != view.self || (view.home == kNoHost && from_manager(view, grant)));
  }
  return false;
}

template <typename Page>
Verdict judge_grant(const Page& page, const View& view, const Message& grant) {
  const Verdict pending = answers_pending(page, view, grant);
  if (pending != Verdict::kAccepted) return pending;
  if (page.granted) return Verdict::kDuplicate;
  const bool read = pending_of(page) == Pending::kRead;
  if (grant.right != (read ? Right::kShared : Right::kExclusive)) return Verdict::kIllegal;
  if (grant.discard != (pending_of(page) == Pending::kDiscard)) return Verdict::kIllegal;
  if (!contents_fit(page, view, grant)) return Verdict::kIllegal;
  if (read && (grant.acks != 0 || grant.payload == Payload::kNone)) return Verdict::kIllegal;
  if (grant.acks >= Page::kHosts || grant.acks < page.acks) return Verdict::kIllegal;
  return Verdict::kAccepted;
}

// Maps and wakes: once the grant and every acknowledgement are here, of which `last` is one.
template <typename Page>
void finish_when_complete(const Context<Page>& at, const Message& last) {
  Page& page = at.page;
  if (!page.granted || page.acks != 0) return;
  const bool read = pending_of(page) == Pending::kRead;
  const bool upgrade = right_of(page, at.view) == Right::kShared;
  Message about{.from = at.view.self, .to = at.view.self, .requester = at.view.self};
  about.txn = last.txn;
  about.gfn = last.gfn;

  // An upgrade with discard: this host's own copy is the last one left.
  if (pending_of(page) == Pending::kDiscard && upgrade) {
    at.steps.push(Step::Kind::kDropFrame, about);
  }
  about.right = read ? Right::kShared : Right::kExclusive;
  set_access(page, read ? Access::kShared : Access::kExclusive);
  // Until now an upgrader's copy was of the version before, and could be asked for as such.
  if (upgrade) page.held_version = next_version<Page>(page.held_version);
  page.reads_served = 0;
  page.pending = static_cast<std::uint32_t>(Pending::kNothing);
  page.txn = 0;
  page.granted = 0;
  page.acks = 0;
  at.steps.push(grant_step(about.right), about);
  at.steps.push(Step::Kind::kComplete, about);
}

}  // namespace

template <typename Page>
FaultStart on_fault(Page& page, const View& view, Gfn gfn, Right wanted, bool discard, Lane lane,
                    std::uint32_t txn, Steps& steps) noexcept {
  Message request{.from = view.self, .to = view.manager, .requester = view.self};
  request.lane = lane;
  request.txn = txn;
  request.gfn = gfn;
  request.moves = view.moves;

  if (pending_of(page) == Pending::kRelease) return FaultStart::kPending;
  const Right held = right_of(page, view);
  if (!discard && held >= wanted) {
    request.right = held;
    if (held != Right::kInvalid) steps.push(grant_step(held), request);
    return FaultStart::kHeld;
  }
  if (pending_of(page) != Pending::kNothing) return FaultStart::kPending;
  if (discard && held == Right::kExclusive) {
    // Nobody else has a right or contents: no message is needed.
    request.right = held;
    steps.push(Step::Kind::kDropFrame, request);
    steps.push(Step::Kind::kGrantExclusive, request);
    steps.push(Step::Kind::kComplete, request);
    return FaultStart::kStarted;
  }
  if (view.frozen) return FaultStart::kPending;

  const bool read = wanted == Right::kShared && !discard;
  const Pending pending = read ? Pending::kRead : discard ? Pending::kDiscard : Pending::kWrite;
  page.pending = static_cast<std::uint32_t>(pending);
  page.txn = low_bits(txn);
  page.granted = 0;
  page.acks = 0;
  request.kind = read ? Kind::kReadRequest : Kind::kWriteRequest;
  request.discard = discard;
  steps.push(Step::Kind::kSend, request);
  return FaultStart::kStarted;
}

template <typename Page>
bool expects_contents(const Page& page, const View& view, const Message& grant) noexcept {
  return grant.kind == Kind::kGrant && grant.payload != Payload::kNone && grant.to == view.self &&
         grant.from < Page::kHosts && judge_grant(page, view, grant) == Verdict::kAccepted;
}

template <typename Page>
Verdict request_grant(const Context<Page>& at, const Message& grant) noexcept {
  const Verdict verdict = judge_grant(at.page, at.view, grant);
  if (verdict != Verdict::kAccepted) return verdict;
  at.page.granted = 1;
  at.page.acks = grant.acks - at.page.acks;
  if (grant.payload != Payload::kNone) at.page.held_version = grant.version;
  finish_when_complete(at, grant);
  return verdict;
}

template <typename Page>
Verdict request_ack(const Context<Page>& at, const Message& ack) noexcept {
  Page& page = at.page;
  const Verdict pending = answers_pending(page, at.view, ack);
  if (pending != Verdict::kAccepted) return pending;
  // A holder never acknowledges to itself, and a read invalidates nobody.
  if (ack.from == at.view.self || pending_of(page) == Pending::kRead) return Verdict::kIllegal;
  // Once granted, one is missing at least: otherwise nothing would be pending.
  if (!page.granted && page.acks == Page::kHosts - 1) return Verdict::kIllegal;
  page.acks = page.granted ? page.acks - 1u : page.acks + 1u;
  finish_when_complete(at, ack);
  return Verdict::kAccepted;
}

void request_awarded(const Context<PageState>& at, const Message& award) noexcept {
  at.page.acks = 0;
  finish_when_complete(at, award);
}

template FaultStart on_fault(PageState&, const View&, Gfn, Right, bool, Lane, std::uint32_t,
                             Steps&) noexcept;
template bool expects_contents(const PageState&, const View&, const Message&) noexcept;
template Verdict request_grant(const Context<PageState>&, const Message&) noexcept;
template Verdict request_ack(const Context<PageState>&, const Message&) noexcept;
template FaultStart on_fault(WidePageState&, const View&, Gfn, Right, bool, Lane, std::uint32_t,
                             Steps&) noexcept;
template bool expects_contents(const WidePageState&, const View&, const Message&) noexcept;
template Verdict request_grant(const Context<WidePageState>&, const Message&) noexcept;
template Verdict request_ack(const Context<WidePageState>&, const Message&) noexcept;

}  // namespace xenspan::dsm::ivy
