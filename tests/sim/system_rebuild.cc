// A host has died, and the others go on (dsm-rdma/ivy/rebuild.h): the steps of the plan that the
// home's daemon makes, each on all hosts before the next on any. Who has got how far is all there
// is of the plan; the daemons' own messages are not modelled, because they only add waiting.
#include <algorithm>

#include "dsm-rdma/ivy/rebuild.h"
#include "dsm-rdma/ivy/slots.h"
#include "tests/sim/system.h"

namespace xenspan::dsm::sim {

using ivy::Judged;
using ivy::Kind;
using ivy::Message;
using ivy::PageState;
using ivy::Payload;
using ivy::SlotState;
using ivy::Step;
using ivy::Verdict;

namespace {

template <typename Call>
auto with_narrow(SimPage& page, Call call) {
  return page.with(false, [&](auto& state) -> decltype(call(std::declval<PageState&>())) {
    if constexpr (std::is_same_v<std::remove_reference_t<decltype(state)>, PageState>) {
      return call(state);
    } else {
      return {};
    }
  });
}

}  // namespace

bool System::all_left(Stage least) const {
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    if (host != dead_ && rebuild_.stages[host] < least) return false;
  }
  return true;
}

bool System::any_left(Stage least) const {
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    if (host != dead_ && rebuild_.stages[host] >= least) return true;
  }
  return false;
}

bool System::whole() const { return !crashed() || (shape_.survive && all_left(Stage::kThawed)); }

// Nothing is under way among those that are left but what is parked for ever.
bool System::quiet_among_left() const {
  if (shape_.mutation == Mutation::kNotQuiet) return true;
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    if (host == dead_) continue;
    for (unsigned page = 0; page < shape_.pages; ++page) {
      if (locked(host, page)) return false;
    }
    for (unsigned slot = 0; slot < slot_count(); ++slot) {
      if (members_.slots[host][slot].phase == SlotState::Phase::kGoing) return false;
    }
  }
  return std::all_of(in_flight_.begin(), in_flight_.end(), [&](const InFlight& flight) {
    if (flight.message.from == dead_) return shape_.mutation == Mutation::kLateAccepted;
    return !is_about_slot(flight.message.kind) && early(flight.message);
  });
}

bool System::may_rebuild(unsigned host) const {
  const auto none_under_way = [&] {
    return std::all_of(in_flight_.begin(), in_flight_.end(),
                       [&](const InFlight& flight) { return flight.message.from == dead_; });
  };
  // Each step takes the pages' locks.
  for (unsigned page = 0; page < shape_.pages && rebuild_.stages[host] != Stage::kRuns; ++page) {
    if (locked(host, page)) return false;
  }
  switch (rebuild_.stages[host]) {
    case Stage::kRuns: return true;
    case Stage::kFrozen:
      return any_left(Stage::kForgot) || (all_left(Stage::kFrozen) && quiet_among_left());
    case Stage::kForgot: return all_left(Stage::kForgot);
    case Stage::kClaimed:
      return any_left(Stage::kJudged) || (all_left(Stage::kClaimed) && none_under_way());
    case Stage::kJudged:
      return any_left(Stage::kAbandoned) || (all_left(Stage::kJudged) && none_under_way());
    case Stage::kAbandoned: return all_left(Stage::kAbandoned);
    case Stage::kThawed: return false;
  }
  return false;
}

void System::list_rebuild_events(std::vector<Event>& events) const {
  if (!crashed() || rebuild_.stopped) return;
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    if (host != dead_ && may_rebuild(host))
      events.push_back({Event::Kind::kRebuild, static_cast<std::uint16_t>(host), 0, 0});
  }
}

// Only a page of these may be lost: managing a page, or having a part in somebody else's request
// for it, is no reason.
void System::note_involved(HostId dead) {
  const auto note = [&](Gfn page) {
    rebuild_.involved = static_cast<std::uint8_t>(rebuild_.involved | 1u << page);
  };
  for (unsigned page = 0; page < shape_.pages; ++page) {
    const bool pending =
        places_[dead][page].state.with(false, [](const auto& state) { return state.pending != 0; });
    if (pending || right_at(dead, page) != Right::kInvalid) note(page);
    const Work& work = work_[dead][page];
    for (std::size_t i = work.at; i < work.steps.size(); ++i) {
      const Message& message = work.steps[i].message;
      if (work.steps[i].kind == Step::Kind::kSend &&
          (message.requester == dead ||
           (message.kind == Kind::kGrant && message.payload != Payload::kNone)))
        note(page);
    }
  }
  for (const InFlight& flight : in_flight_) {
    const Message& message = flight.message;
    if (is_about_slot(message.kind) || message.kind == Kind::kRow) continue;
    const bool contents = message.kind == Kind::kGrant && message.payload != Payload::kNone;
    if (message.requester == dead || (message.from == dead && contents)) note(message.gfn);
  }
}

void System::run_rebuild(HostId host) {
  Stage& stage = rebuild_.stages[host];
  switch (stage) {
    case Stage::kRuns: freeze(host); break;
    case Stage::kFrozen: forget(host); break;
    case Stage::kForgot: claim(host); break;
    case Stage::kClaimed: judge_claims_at(host); break;
    case Stage::kJudged: abandon_at(host); break;
    case Stage::kAbandoned: thaw(host); break;
    case Stage::kThawed: return;
  }
  stage = static_cast<Stage>(static_cast<unsigned>(stage) + 1);
}

// Its connections to the dead host are closed.
void System::freeze(HostId host) {
  if (shape_.mutation == Mutation::kLateAccepted) {
    mutated_ = true;
    return;
  }
  std::erase_if(in_flight_, [&](const InFlight& flight) {
    return flight.message.from == dead_ && flight.message.to == host;
  });
}

void System::forget(HostId host) {
  // What was parked; and with a table that is the same everywhere, since nothing is under way.
  std::erase_if(in_flight_, [&](const InFlight& flight) {
    return flight.message.to == host && flight.message.from != dead_;
  });
  for (unsigned slot = 0; slot < slot_count(); ++slot) {
    SlotState& state = members_.slots[host][slot];
    HostId manager = shape_.managers[slot];
    if (manager == dead_) manager = static_cast<HostId>((dead_ + 1) % shape_.hosts);
    state = {};
    state.manager = manager;
    state.moves = 9;
  }
  if (shape_.mutation == Mutation::kRowKept) {
    mutated_ = true;
    return;
  }
  for (unsigned page = 0; page < shape_.pages; ++page)
    with_narrow(places_[host][page].state, [](PageState& state) {
      forget_row(state);
      return 0;
    });
}

void System::claim(HostId host) {
  for (unsigned page = 0; page < shape_.pages; ++page) {
    Message claim;
    const ivy::View now = view(host, page);
    const bool any = with_narrow(places_[host][page].state, [&](PageState& state) {
      return make_claim(state, now, page, claim);
    });
    if (!any) continue;
    const bool gone = claim.right == Right::kInvalid && copyset_of(claim) == 0;
    const bool forgotten =
        (shape_.mutation == Mutation::kClaimForgotten && claim.right == Right::kShared) ||
        (shape_.mutation == Mutation::kGoneForgotten && gone) ||
        (shape_.mutation == Mutation::kContentsForgotten && claim.right == Right::kInvalid &&
         !gone);
    if (forgotten && may_mutate()) {
      mutated_ = true;
    } else {
      in_flight_.push_back({claim, 0});
    }
  }
}

// false: a row of a slot that moves, as at any other time.
bool System::deliver_after_loss(const Message& message) {
  const Stage stage = rebuild_.stages[message.to];
  if (stage < Stage::kForgot || stage == Stage::kThawed) return false;
  const auto page = static_cast<unsigned>(message.gfn);
  if (message.requester != message.from) {
    take_award(message.to, message);
    return true;
  }
  // Whose request was nearly over counts as if nobody had the page.
  Message claim = message;
  if (shape_.mutation == Mutation::kAwardedBesides && claim.right == Right::kInvalid &&
      copyset_of(claim) != 0) {
    mutated_ = true;
    take_award(claim.from, claim);
    claim.right = Right::kExclusive;
  }
  const Verdict verdict = with_narrow(places_[message.to][page].state, [&](PageState& state) {
    return on_claim(state, view(message.to, page), claim);
  });
  if (strict() && verdict != Verdict::kAccepted) fail("a correct claim was refused");
  return true;
}

void System::judge_claims_at(HostId host) {
  for (unsigned page = 0; page < shape_.pages; ++page) {
    const ivy::View now = view(host, page);
    if (now.manager != host) continue;
    Message award;
    const Judged judged = with_narrow(places_[host][page].state, [&](PageState& state) {
      return judge_claims(state, now, page, award);
    });
    if (judged == Judged::kLost) {
      rebuild_.stopped = true;
      if ((rebuild_.involved >> page & 1) == 0)
        fail("a page counts as lost although the dead host had no part in it");
    } else if (judged == Judged::kAwarded && award.to == host) {
      take_award(host, award);
    } else if (judged == Judged::kAwarded) {
      in_flight_.push_back({award, 0});
    }
  }
}

void System::take_award(HostId host, const Message& award) {
  const auto page = static_cast<unsigned>(award.gfn);
  steps_.clear();
  Message mine = award;
  mine.from = view(host, page).manager;
  mine.to = mine.requester = host;
  const Verdict verdict = with_narrow(places_[host][page].state, [&](PageState& state) {
    return on_award(state, view(host, page), mine, state.txn, steps_);
  });
  if (strict() && verdict != Verdict::kAccepted) fail("a correct award was refused");
  take_over_steps(host, page);
}

void System::abandon_at(HostId host) {
  if (shape_.mutation == Mutation::kRequestKept) {
    mutated_ = true;
    return;
  }
  for (unsigned page = 0; page < shape_.pages; ++page)
    with_narrow(places_[host][page].state, [](PageState& state) { return abandon(state); });
  for (unsigned i = 0; i < shape_.vcpus_per_host; ++i) {
    Vcpu& vcpu = vcpus_[host * shape_.vcpus_per_host + i];
    if (vcpu.mode == Mode::kWaiting) vcpu.mode = Mode::kBlocked;
  }
}

void System::thaw(HostId host) {
  for (unsigned i = 0; i < shape_.vcpus_per_host; ++i) {
    Vcpu& vcpu = vcpus_[host * shape_.vcpus_per_host + i];
    if (vcpu.mode == Mode::kBlocked) vcpu.mode = Mode::kReady;
  }
}

}  // namespace xenspan::dsm::sim
