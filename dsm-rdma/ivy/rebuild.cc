#include "dsm-rdma/ivy/rebuild.h"

#include <bit>

#include "dsm-rdma/ivy/roles.h"

namespace xenspan::dsm::ivy {
namespace {

// A page's manager fields while claims come in. directory_set: a host holds it, and `only_shared`
// says how. Not set: `hosts` is who claims contents of a request that was nearly over, if any, and
// reads_sent is 1 when the home has given the page away.
constexpr std::uint32_t kGone = 1;

bool has_granted_contents(const PageState& page, const View& view) {
  return page.granted != 0 && right_of(page, view) == Right::kInvalid &&
         (pending_of(page) == Pending::kWrite || pending_of(page) == Pending::kDiscard);
}

Verdict hold(PageState& page, const Message& claim) {
  const bool shared = claim.right == Right::kShared;
  if (page.directory_set != 0) {
    if (!shared || page.only_shared == 0 || claim.version != page.version) return Verdict::kIllegal;
    page.set_hosts(page.hosts() | mask_of(claim.from));
    return Verdict::kAccepted;
  }
  page.directory_set = 1;
  page.only_shared = shared;
  page.set_hosts(mask_of(claim.from));
  page.owner = claim.from;
  page.version = claim.version;
  page.reads_sent = 0;
  return Verdict::kAccepted;
}

}  // namespace

void forget_row(PageState& page) noexcept {
  page.directory_set = 0;
  page.only_shared = 0;
  page.set_hosts(0);
  page.owner = 0;
  page.version = 0;
  page.reads_sent = 0;
}

bool make_claim(PageState& page, const View& view, Gfn gfn, Message& claim) noexcept {
  claim = {.kind = Kind::kRow, .from = view.self, .to = view.manager, .requester = view.self};
  claim.moves = view.moves;
  claim.gfn = gfn;
  claim.right = right_of(page, view);
  claim.version = static_cast<std::uint16_t>(page.held_version);
  set_copyset(claim, mask_of(view.self));
  if (claim.right != Right::kInvalid) {
    page.reads_served = 0;
    return page.access != static_cast<std::uint32_t>(Access::kInitial);
  }
  if (has_granted_contents(page, view)) return true;
  set_copyset(claim, 0);
  claim.version = 0;
  return view.self == view.home;
}

Verdict on_claim(PageState& page, const View& view, const Message& claim) noexcept {
  if (view.self != view.manager || claim.to != view.self || claim.requester != claim.from ||
      claim.from >= PageState::kHosts) {
    return Verdict::kIllegal;
  }
  if (claim.right != Right::kInvalid) return hold(page, claim);
  if (page.directory_set != 0) return Verdict::kAccepted;
  if (copyset_of(claim) == 0) {
    page.reads_sent = kGone;
    return Verdict::kAccepted;
  }
  if (page.hosts() != 0) return Verdict::kIllegal;
  page.set_hosts(mask_of(claim.from));
  page.version = claim.version;
  return Verdict::kAccepted;
}

Judged judge_claims(PageState& page, const View& view, Gfn gfn, Message& award) noexcept {
  if (page.directory_set != 0) return Judged::kKnown;
  if (page.hosts() == 0) {
    const bool lost = page.reads_sent == kGone;
    forget_row(page);
    return lost ? Judged::kLost : Judged::kKnown;
  }
  const auto heir = static_cast<HostId>(std::countr_zero(page.hosts()));
  page.directory_set = 1;
  page.owner = heir;
  page.reads_sent = 0;
  award = {.kind = Kind::kRow, .from = view.self, .to = heir, .requester = heir};
  award.right = Right::kExclusive;
  award.version = static_cast<std::uint16_t>(page.version);
  award.moves = view.moves;
  award.gfn = gfn;
  set_copyset(award, mask_of(heir));
  return Judged::kAwarded;
}

Verdict on_award(PageState& page, const View& view, const Message& award, std::uint32_t txn,
                 Steps& steps) noexcept {
  if (award.to != view.self || award.requester != view.self || award.from != view.manager ||
      award.version != page.held_version || low_bits(txn) != page.txn ||
      !has_granted_contents(page, view)) {
    return Verdict::kIllegal;
  }
  Message last = award;
  last.txn = txn;
  const Context<PageState> at{page, view, steps};
  request_awarded(at, last);
  return Verdict::kAccepted;
}

bool abandon(PageState& page) noexcept {
  if (page.pending == static_cast<std::uint32_t>(Pending::kNothing)) return false;
  page.pending = static_cast<std::uint32_t>(Pending::kNothing);
  page.txn = 0;
  page.granted = 0;
  page.acks = 0;
  return true;
}

}  // namespace xenspan::dsm::ivy
