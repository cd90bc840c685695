// Hosts that come and go in the model: slots that move, a host that drains and leaves, one that
// joins. The plan is the one of dsm-rdma/membership.h; its steps are events like any other.
#include <algorithm>

#include "dsm-rdma/ivy/slots.h"
#include "tests/sim/system.h"

namespace xenspan::dsm::sim {

using ivy::FaultStart;
using ivy::Kind;
using ivy::Message;
using ivy::SlotState;
using ivy::SlotStep;
using ivy::Verdict;
using Phase = SlotState::Phase;

void System::reset_members() {
  members_ = {};
  members_.moves_left = static_cast<std::uint8_t>(shape_.moves);
  members_.joined = shape_.joiner < 0;
  if (!shape_.elastic) return;
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    for (unsigned page = 0; page < shape_.pages; ++page) {
      members_.slots[host][page].manager = shape_.managers[slot_of(page)];
    }
  }
}

bool System::present(unsigned host) const {
  if (host == dead_) return false;
  if (static_cast<int>(host) == shape_.joiner) return members_.joined;
  return !(static_cast<int>(host) == shape_.leaver && members_.left);
}

bool System::draining(unsigned host) const {
  return static_cast<int>(host) == shape_.leaver && members_.draining;
}

bool System::slot_is_quiet(unsigned slot) const {
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    if (members_.slots[host][slot].phase != Phase::kSettled) return false;
  }
  return std::none_of(in_flight_.begin(), in_flight_.end(), [&](const InFlight& flight) {
    return is_about_slot(flight.message.kind) && flight.message.gfn == slot;
  });
}

unsigned System::manager_of(unsigned page) const {
  if (!shape_.elastic) return shape_.managers[page];
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    if (present(host) && members_.slots[host][slot_of(page)].manager == host) return host;
  }
  return shape_.managers[slot_of(page)];
}

bool System::offer_pending(unsigned page) const {
  const auto pending = [&](unsigned host) {
    return places_[host][page].state.with(false,
                                          [](const auto& state) { return state.pending != 0; });
  };
  if (pending(static_cast<unsigned>(shape_.leaver)) || pending(shape_.heir)) return true;
  return std::any_of(in_flight_.begin(), in_flight_.end(), [&](const InFlight& flight) {
    return flight.message.kind == Kind::kOffer && flight.message.gfn == page;
  });
}

// As at the start, and its guest has written nothing either (the engine: PageTable::next_active).
bool System::untouched(unsigned host, unsigned page) const {
  const Place& place = places_[host][page];
  return place.frame == 0 && place.mapped == Right::kInvalid &&
         place.state.with(false, [](const auto& state) {
           return state.access == static_cast<std::uint32_t>(ivy::Access::kInitial);
         });
}

bool System::holds_pages(unsigned host) const {
  for (unsigned page = 0; page < shape_.pages; ++page) {
    if (locked(host, page)) return true;
    if (right_at(host, page) != Right::kInvalid && !untouched(host, page)) return true;
  }
  return false;
}

// Of the hosts that are there and do not leave, all are in the mask.
bool System::all_others(unsigned mask) const {
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    if (present(host) && static_cast<int>(host) != shape_.leaver && (mask >> host & 1) == 0)
      return false;
  }
  return true;
}

// The home has drained for the first time.
void System::list_home_events(std::vector<Event>& events) const {
  const bool forgotten = all_others(members_.homeless);
  bool settled = forgotten && all_others(members_.learned);
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    if (!present(host) || static_cast<int>(host) == shape_.leaver) continue;
    settled = settled && has_settled(host);
    const auto number = static_cast<std::uint16_t>(host);
    if (!homeless(host) && shape_.mutation != Mutation::kHomeForgottenSoon)
      events.push_back({Event::Kind::kForgetHome, number, 0, 0});
    if (forgotten && (members_.learned >> host & 1) == 0)
      events.push_back({Event::Kind::kLearn, number, 0, 0});
  }
  if (shape_.mutation == Mutation::kHomeUnsettled) settled = forgotten;
  if (settled) events.push_back({Event::Kind::kForgetHome, shape_.home, 0, 0});
}

bool System::drained() const {
  if (!members_.draining || members_.unanswered != 0) return false;
  if (holds_pages(static_cast<unsigned>(shape_.leaver))) return false;
  for (unsigned slot = 0; slot < slot_count(); ++slot) {
    const SlotState& state = members_.slots[shape_.leaver][slot];
    if (state.manager == shape_.leaver || state.phase != Phase::kSettled) return false;
  }
  return true;
}

bool System::has_settled(unsigned host) const {
  for (unsigned page = 0; page < shape_.pages; ++page) {
    const std::uint32_t awaited = members_.awaited[host][page];
    const std::uint32_t txn =
        places_[host][page].state.with(false, [](const auto& state) { return state.txn; });
    if (awaited != 0 && awaited == txn) return false;
  }
  for (unsigned slot = 0; slot < slot_count(); ++slot) {
    if (members_.slots[host][slot].phase != Phase::kSettled) return false;
  }
  return true;
}

bool System::may_leave() const {
  if (shape_.mutation == Mutation::kLeavesUnsettled) return drained();
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    if (!present(host) || static_cast<int>(host) == shape_.leaver) continue;
    if ((members_.learned >> host & 1) == 0 || !has_settled(host)) return false;
  }
  return true;
}

void System::list_member_events(std::vector<Event>& events) const {
  const auto add = [&](Event::Kind kind, unsigned host, unsigned what = 0) {
    events.push_back({kind, static_cast<std::uint16_t>(host), static_cast<std::uint8_t>(what), 0});
  };
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    if (!present(host)) continue;
    for (unsigned slot = 0; slot < slot_count(); ++slot) {
      const SlotState& state = members_.slots[host][slot];
      if (state.phase == Phase::kGoing) {
        const unsigned page = members_.next_row[host][slot];
        if (page >= shape_.pages || !locked(host, page)) add(Event::Kind::kHandRow, host, slot);
      }
      if (members_.moves_left > 0 && !draining(host) && !frozen(host) && state.manager != host &&
          state.phase == Phase::kSettled) {
        add(Event::Kind::kTake, host, slot);
      }
    }
  }
  if (crashed()) return;
  if (!members_.joined) add(Event::Kind::kJoin, static_cast<unsigned>(shape_.joiner));
  if (shape_.leaver < 0 || members_.left) return;
  const auto leaver = static_cast<unsigned>(shape_.leaver);
  if (!members_.draining) {
    bool idle = true;
    for (unsigned i = 0; i < shape_.vcpus_per_host; ++i)
      idle = idle && vcpus_[leaver * shape_.vcpus_per_host + i].mode == Mode::kIdle;
    if (idle) add(Event::Kind::kDrain, leaver);
    return;
  }
  for (unsigned page = 0; page < shape_.pages; ++page) {
    if (right_at(leaver, page) != Right::kInvalid && !untouched(leaver, page) &&
        !locked(leaver, page) && !offer_pending(page))
      add(Event::Kind::kGiveUp, leaver, page);
  }
  if (!holds_pages(leaver)) {
    for (unsigned slot = 0; slot < slot_count(); ++slot) {
      const SlotState& state = members_.slots[leaver][slot];
      const bool offered =
          std::any_of(in_flight_.begin(), in_flight_.end(), [&](const InFlight& flight) {
            return flight.message.gfn == slot && (flight.message.kind == Kind::kSlotOffer ||
                                                  flight.message.kind == Kind::kSlotAsk);
          });
      if (state.manager == leaver && state.phase == Phase::kSettled && !offered)
        add(Event::Kind::kGiveSlot, leaver, slot);
    }
  }
  const bool soon = home_leaves() && shape_.mutation == Mutation::kHomeForgottenSoon;
  for (unsigned host = 0; soon && host < shape_.hosts; ++host) {
    if (host != leaver && present(host) && !homeless(host)) add(Event::Kind::kForgetHome, host);
  }
  if (!drained()) return;
  if (home_leaves() && !homeless(leaver)) return list_home_events(events);
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    if (host != leaver && present(host) && (members_.learned >> host & 1) == 0)
      add(Event::Kind::kLearn, host);
  }
  if (may_leave()) add(Event::Kind::kLeave, leaver);
}

void System::run_member_event(const Event& event) {
  const auto host = static_cast<HostId>(event.a);
  switch (event.kind) {
    case Event::Kind::kTake:
      --members_.moves_left;
      do_slot_step(host, event.b, take_slot(members_.slots[host][event.b], host, event.b));
      break;
    case Event::Kind::kHandRow: hand_row(host, event.b); break;
    case Event::Kind::kJoin:
      members_.joined = true;
      for (unsigned slot = 0; slot < slot_count(); ++slot) {
        const SlotState& known = members_.slots[shape_.home][slot];
        SlotState& mine = members_.slots[host][slot];
        mine = {};
        const bool coming = known.phase == Phase::kComing;
        mine.manager = coming ? known.before : known.manager;
        mine.moves = coming ? known.moves_before : known.moves;
      }
      break;
    case Event::Kind::kDrain:
      members_.draining = true;
      for (unsigned i = 0; i < shape_.vcpus_per_host; ++i)
        vcpus_[host * shape_.vcpus_per_host + i] = Vcpu{};
      break;
    case Event::Kind::kGiveUp: give_up(host, event.b); break;
    case Event::Kind::kGiveSlot: {
      Message offer{.kind = Kind::kSlotOffer, .from = host, .to = shape_.heir, .requester = host};
      offer.gfn = event.b;
      in_flight_.push_back({offer, 0});
      break;
    }
    case Event::Kind::kLearn: {
      const auto& table = members_.slots[shape_.leaver];
      for (unsigned slot = 0; slot < slot_count(); ++slot)
        learn(members_.slots[host][slot], host, table[slot].manager, table[slot].moves);
      for (unsigned page = 0; page < shape_.pages; ++page) {
        members_.awaited[host][page] =
            places_[host][page].state.with(false, [](const auto& state) { return state.txn; });
      }
      members_.learned = static_cast<std::uint8_t>(members_.learned | 1u << host);
      break;
    }
    case Event::Kind::kForgetHome:
      members_.homeless = static_cast<std::uint8_t>(members_.homeless | 1u << host);
      if (static_cast<int>(host) == shape_.leaver) members_.learned = 0;
      mutated_ = mutated_ || shape_.mutation == Mutation::kHomeUnsettled ||
                 shape_.mutation == Mutation::kHomeForgottenSoon;
      break;
    case Event::Kind::kLeave: leave(host); break;
    default: break;
  }
}

std::uint32_t System::own_txn(HostId host) { return ++members_.own_txns[host]; }

// A read copy is released; what is exclusive, or has to be kept, the heir is told to ask for.
void System::give_up(HostId host, unsigned page) {
  Place& place = places_[host][page];
  if (right_at(host, page) == Right::kExclusive || (members_.kept >> page & 1) != 0) {
    Message offer{.kind = Kind::kOffer, .from = host, .to = shape_.heir, .requester = host};
    offer.gfn = page;
    in_flight_.push_back({offer, 0});
    return;
  }
  steps_.clear();
  place.state.with(false, [&](auto& state) {
    return on_release(state, view(host, page), page, own_txn(host), steps_);
  });
  if (steps_.size() != 0) ++members_.unanswered;
  mutate(host, page, nullptr);
  take_over_steps(host, page);
}

void System::adopt(HostId host, unsigned page) {
  Place& place = places_[host][page];
  if (right_at(host, page) == Right::kExclusive) return;
  steps_.clear();
  const FaultStart start = place.state.with(false, [&](auto& state) {
    return on_fault(state, view(host, page), page, Right::kExclusive, false, kServiceLane,
                    own_txn(host), steps_);
  });
  if (start == FaultStart::kStarted) take_over_steps(host, page);
}

void System::hand_row(HostId host, unsigned slot) {
  SlotState& state = members_.slots[host][slot];
  std::uint8_t& page = members_.next_row[host][slot];
  while (page < shape_.pages && slot_of(page) != slot) ++page;
  if (page == shape_.pages) {
    in_flight_.push_back({rows_sent(state, host, slot, members_.rows[host][slot]), 0});
    return;
  }
  Message row;
  const bool has = places_[host][page].state.with(false, [&](auto& page_state) {
    if constexpr (std::is_same_v<std::remove_reference_t<decltype(page_state)>, ivy::PageState>) {
      return take_row(page_state, view(host, page), page, state.manager, row);
    } else {
      return false;
    }
  });
  ++page;
  if (!has) return;
  if (may_mutate() && shape_.mutation == Mutation::kRowNotSent) {
    mutated_ = true;
    return;
  }
  if (may_mutate() && shape_.mutation == Mutation::kRowWithoutCopyset &&
      copyset_of(row) != mask_of(row.requester)) {
    set_copyset(row, mask_of(row.requester));
    mutated_ = true;
  }
  if (may_mutate() && shape_.mutation == Mutation::kRowWithoutReads && row.reads != 0) {
    row.reads = 0;
    mutated_ = true;
  }
  ++members_.rows[host][slot];
  in_flight_.push_back({row, 0});
}

void System::do_slot_step(HostId host, unsigned slot, const SlotStep& step) {
  switch (step.kind) {
    case SlotStep::Kind::kNothing: break;
    case SlotStep::Kind::kSend: send_about_slot(step.message); break;
    case SlotStep::Kind::kHandOver:
      members_.next_row[host][slot] = 0;
      members_.rows[host][slot] = 0;
      break;
    case SlotStep::Kind::kArrived: {
      for (unsigned other = 0; other < shape_.hosts; ++other) {
        if (other == host || !present(other)) continue;
        Message moved = step.message;
        moved.to = static_cast<HostId>(other);
        send_about_slot(moved);
      }
      Message ask;
      while (next_asked(members_.slots[host][slot], host, slot, ask)) {
        SlotStep next;
        on_slot_message(members_.slots[host][slot], host, ask, next);
        do_slot_step(host, slot, next);
      }
      break;
    }
  }
}

void System::send_about_slot(const Message& message) {
  if (message.to == dead_) return;
  if (!present(message.to)) {
    if (!may_be_late(message.kind)) fail("a host that is not there is written to");
    return;
  }
  in_flight_.push_back({message, 0});
}

void System::deliver_about_slot(const Message& message) {
  const auto slot = static_cast<unsigned>(message.gfn);
  SlotStep step;
  const Verdict verdict =
      on_slot_message(members_.slots[message.to][slot], message.to, message, step);
  if (strict() && verdict != Verdict::kAccepted) fail("a correct message about a slot was refused");
  do_slot_step(message.to, slot, step);
}

// What the engine does before and after the page's own machine sees its row.
bool System::expect_row(const Message& row) {
  const bool expected =
      expects_row(members_.slots[row.to][slot_of(static_cast<unsigned>(row.gfn))], row.to, row);
  if (strict() && !expected) fail("a correct row was refused");
  return expected;
}
void System::count_row(const Message& row) {
  const unsigned slot = slot_of(static_cast<unsigned>(row.gfn));
  do_slot_step(row.to, slot, row_arrived(members_.slots[row.to][slot], row.to, slot));
}

void System::leave(HostId host) {
  members_.left = true;
  mutated_ = mutated_ || shape_.mutation == Mutation::kLeavesUnsettled;
  for (const InFlight& flight : in_flight_) {
    if (may_be_late(flight.message.kind) || flight.repeated) continue;
    if (flight.message.to == host) fail("a message is under way to a host that has left");
    if (flight.message.from == host) fail("a message of a host that has left is under way");
  }
  for (unsigned other = 0; other < shape_.hosts; ++other) {
    if (other == host || !present(other)) continue;
    for (unsigned slot = 0; slot < slot_count(); ++slot) {
      if (members_.slots[other][slot].manager == host) fail("a host that has left is a manager");
    }
  }
  for (unsigned page = 0; page < shape_.pages; ++page) {
    if (places_[host][page].mapped != Right::kInvalid) fail("a host that has left has a page");
  }
  std::erase_if(in_flight_, [&](const InFlight& flight) {
    return flight.message.to == host || flight.message.from == host;
  });
}

}  // namespace xenspan::dsm::sim
