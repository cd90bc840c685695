// The host that gives up a read copy of its own accord, because it is about to leave the domain.
//
// Its guest loses the page first; only then the manager hears of it. Until the manager has answered
// the copy is still there: if this host is the owner, readers get the page from here, and if a
// writer was before, the copy is taken away as any other, and that is the answer.
#include "dsm-rdma/ivy/roles.h"

namespace xenspan::dsm::ivy {

template <typename Page>
FaultStart on_release(Page& page, const View& view, Gfn gfn, std::uint32_t txn,
                      Steps& steps) noexcept {
  if (pending_of(page) != Pending::kNothing) return FaultStart::kPending;
  if (right_of(page, view) != Right::kShared) return FaultStart::kHeld;
  if (view.frozen) return FaultStart::kPending;
  Message release{.kind = Kind::kRelease, .from = view.self, .to = view.manager};
  release.requester = view.self;
  release.version = static_cast<std::uint16_t>(page.held_version);
  release.moves = view.moves;
  release.txn = txn;
  release.gfn = gfn;
  page.pending = static_cast<std::uint32_t>(Pending::kRead);  // of a shared right: kRelease
  page.txn = low_bits(txn);
  steps.push(Step::Kind::kWithdraw, release);
  steps.push(Step::Kind::kSend, release);
  return FaultStart::kStarted;
}

template <typename Page>
void end_release(const Context<Page>& at, Gfn gfn) noexcept {
  Message about{.kind = Kind::kRelease, .from = at.view.self, .to = at.view.self};
  about.requester = at.view.self;
  about.txn = at.page.txn;
  about.gfn = gfn;
  at.page.pending = static_cast<std::uint32_t>(Pending::kNothing);
  at.page.txn = 0;
  at.steps.push(Step::Kind::kComplete, about);
}

template <typename Page>
Verdict request_released(const Context<Page>& at, const Message& released) noexcept {
  Page& page = at.page;
  if (released.requester != at.view.self || !from_manager(at.view, released)) {
    return Verdict::kIllegal;
  }
  if (pending_of(page) == Pending::kNothing || low_bits(released.txn) != page.txn)
    return Verdict::kDuplicate;
  if (pending_of(page) != Pending::kRelease || released.version != page.held_version) {
    return Verdict::kIllegal;
  }
  switch (released.right) {  // message.h: kReleased
    case Right::kShared: break;
    case Right::kInvalid:
      set_access(page, Access::kInvalid);
      at.steps.push(Step::Kind::kDropFrame, released);
      break;
    case Right::kExclusive: return Verdict::kAccepted;
  }
  end_release(at, released.gfn);
  return Verdict::kAccepted;
}

template FaultStart on_release(PageState&, const View&, Gfn, std::uint32_t, Steps&) noexcept;
template FaultStart on_release(WidePageState&, const View&, Gfn, std::uint32_t, Steps&) noexcept;
template void end_release(const Context<PageState>&, Gfn) noexcept;
template void end_release(const Context<WidePageState>&, Gfn) noexcept;
template Verdict request_released(const Context<PageState>&, const Message&) noexcept;
template Verdict request_released(const Context<WidePageState>&, const Message&) noexcept;

}  // namespace xenspan::dsm::ivy
