// A host has died, and the hosts that are left build the directory anew from what they hold: pure
// functions beside the page's machine, for the steps of PROTOCOL.md, "When a host is lost".
//
// Before: every host that is left has frozen (View::frozen), nothing is under way between any two
// of them, and nothing of the dead host can arrive any more. Then, each step on all of them before
// the next on any: forget_row() of every page, with the new slot table; make_claim() of every page,
// to its manager; judge_claims() of every page at its manager; abandon() of every request. Then
// they thaw, and whoever wanted a page asks again. The caller holds the page's lock as ever.
//
// Claims and awards travel as kRow. PageState only: a wide domain's engine does not exist.
#pragma once

#include "dsm-rdma/ivy/machine.h"

namespace xenspan::dsm::ivy {

// What this host knew of the page as a manager is of no use any more.
void forget_row(PageState& page) noexcept;

// What this host has of the page: a claim for view.manager. false: nothing that has to be told.
// `right` is what it holds; kInvalid with this host in the copyset: contents that were granted to
// it while acknowledgements are missing still; with an empty copyset: the home has given it away.
// Read forwards are counted anew from here on.
bool make_claim(PageState& page, const View& view, Gfn gfn, Message& claim) noexcept;

// At the manager. kAccepted; kIllegal: the claims contradict each other.
Verdict on_claim(PageState& page, const View& view, const Message& claim) noexcept;

enum class Judged : std::uint8_t {
  kKnown,    // the page has its row, or is as at the start
  kAwarded,  // nobody has the page but the one whose request was nearly over: `award` is for it
  kLost,     // nobody has it
};
Judged judge_claims(PageState& page, const View& view, Gfn gfn, Message& award) noexcept;

// At the host it is for: its request is over. `txn` is that of the request.
Verdict on_award(PageState& page, const View& view, const Message& award, std::uint32_t txn,
                 Steps& steps) noexcept;

// The request that is under way here never will be answered. false: there is none.
bool abandon(PageState& page) noexcept;

}  // namespace xenspan::dsm::ivy
