// Hosts come and go: slots change their managers, and a host gives up what it has (membership.h).
//
// What arrives about slots is handled by the service thread, which also walks over the pages of
// slots that come or go, many slots by one walk (serve_slots). The calls of Membership run in
// threads of their callers and look every now and then how far things are.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <ctime>
#include <mutex>
#include <vector>

#include "dsm-rdma/engine_window.h"

namespace xenspan::dsm {
namespace {

// Slots that one host takes at a time: their pages wait until the rows of all of them are here.
constexpr unsigned kTakenTogether = 16;
// Pages that a host gives up at a time: as many as its heir has places for (requests.h).
constexpr std::size_t kGivenTogether = Requests::kFewAheadPlaces;
// A hint that may not have been taken is given again: after so long, then after twice that, and so
// on. Where things take long, more hints than are served would be all that is served.
constexpr std::uint64_t kHintAgainNs = 2'000'000, kHintLatestNs = 128'000'000;

class HintTimes {
 public:
  bool due() noexcept {
    if (now_ns() < at_) return false;
    at_ = now_ns() + interval_;
    interval_ = std::min(2 * interval_, kHintLatestNs);
    return true;
  }

 private:
  std::uint64_t at_ = 0, interval_ = kHintAgainNs;
};

// While others work: a short time at first, and longer where that was not enough.
class Rest {
 public:
  void operator()() noexcept {
    const timespec while_others_work{0, ns_};
    ::nanosleep(&while_others_work, nullptr);
    ns_ = std::min(ns_ + ns_ / 8, kLongestNs);
  }

 private:
  static constexpr long kLongestNs = 2'000'000;
  long ns_ = 50'000;
};

}  // namespace

// ---- the service thread

bool EngineCore::deliver_membership(const ivy::Message& message, Outbox& outbox) noexcept {
  using ivy::Kind;
  if (is_lost(message.from)) return true;
  if (message.kind == Kind::kOffer || message.kind == Kind::kRow) {
    if (message.gfn >= table_.pages()) return false;
    return message.kind == Kind::kRow ? take_in_row(message, outbox) : adopt(message.gfn, outbox);
  }
  if (message.gfn >= SlotTable::kSlots) return false;
  const auto slot = static_cast<unsigned>(message.gfn);
  ivy::SlotStep step;
  const ivy::Verdict verdict = slots_.with(slot, [&](ivy::SlotState& state) {
    return ivy::on_slot_message(state, config_.self, message, step);
  });
  if (verdict == ivy::Verdict::kIllegal) return false;
  do_slot_step(slot, step, outbox);
  return true;
}

bool EngineCore::take_in_row(const ivy::Message& row, Outbox& outbox) noexcept {
  if (stage_.load() == Stage::kForgot) return take_in_claim(row, outbox);
  const unsigned slot = SlotTable::slot_of(row.gfn);
  const bool expected = slots_.with(
      slot, [&](ivy::SlotState& state) { return ivy::expects_row(state, config_.self, row); });
  if (!expected) return false;
  {
    PageEntry& entry = table_[row.gfn];
    const std::lock_guard guard(entry);
    table_.activate(row.gfn);
    if (!feed(entry, row, true, outbox)) return true;  // has stopped
  }
  const ivy::SlotStep step = slots_.with(
      slot, [&](ivy::SlotState& state) { return ivy::row_arrived(state, config_.self, slot); });
  do_slot_step(slot, step, outbox);
  return true;
}

void EngineCore::post(const ivy::Message& message, Outbox& outbox) noexcept {
  count_sent(message.to);
  outbox.put(message, nullptr);
  if (outbox.full()) send_all(outbox);
}

void EngineCore::do_slot_step(unsigned slot, const ivy::SlotStep& step, Outbox& outbox) noexcept {
  switch (step.kind) {
    case ivy::SlotStep::Kind::kNothing: break;
    case ivy::SlotStep::Kind::kSend: post(step.message, outbox); break;
    case ivy::SlotStep::Kind::kHandOver: going_.set(slot); break;
    case ivy::SlotStep::Kind::kArrived:
      arrived_.set(slot);
      for (HostMask others = members() & ~mask_of(config_.self); others != 0;
           others &= others - 1) {
        ivy::Message moved = step.message;
        moved.to = static_cast<HostId>(std::countr_zero(others));
        post(moved, outbox);
      }
      break;
  }
}

// One walk over all pages that any host has touched, for all slots that have come or have to go.
void EngineCore::serve_slots(Outbox& outbox) noexcept {
  while (!ended() && (going_.any() || arrived_.any())) {
    const std::bitset<SlotTable::kSlots> going = going_, arrived = arrived_;
    going_.reset();
    arrived_.reset();
    std::array<std::uint32_t, SlotTable::kSlots> rows{};
    constexpr Gfn kBlock = SlotTable::kBlockPages;
    // The table's pieces and the slots' blocks begin at different pages.
    const Gfn pages = table_.pages();
    for (Gfn gfn = table_.next_active(0, pages), end; gfn < pages;
         gfn = table_.next_active(end, pages)) {
      end = std::min((gfn / kBlock + 1) * kBlock, pages);
      const unsigned slot = SlotTable::slot_of(gfn);
      if (!going[slot] && !arrived[slot]) continue;
      for (Gfn page = gfn; page < end; ++page) {
        if (going[slot]) rows[slot] += give_row(page, outbox);
        if (arrived[slot]) look_again(page, outbox);
      }
    }
    for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot) {
      if (going[slot]) {
        post(slots_.with(slot,
                         [&](ivy::SlotState& state) {
                           return ivy::rows_sent(state, config_.self, slot, rows[slot]);
                         }),
             outbox);
      }
      if (arrived[slot]) serve_asked(slot, outbox);
    }
  }
}

bool EngineCore::give_row(Gfn gfn, Outbox& outbox) noexcept {
  PageEntry& entry = table_[gfn];
  const std::lock_guard guard(entry);
  const ivy::View now = view(gfn);
  ivy::Message row;
  if (!ivy::take_row(entry.state, now, gfn, now.manager, row)) return false;
  post(row, outbox);
  return true;
}

// Requests that came before the page's row did, or before it was known that it has none.
void EngineCore::look_again(Gfn gfn, Outbox& outbox) noexcept {
  PageEntry& entry = table_[gfn];
  const std::lock_guard guard(entry);
  if (!entry.parked()) return;
  Event event(outbox);
  ivy::Steps steps;
  if (release_parked(entry, gfn, event)) feed_all(entry, event, steps, true);
}

void EngineCore::look_at_parked(Outbox& outbox) noexcept {
  const Gfn pages = table_.pages();
  for (Gfn gfn = table_.next_active(0, pages); gfn < pages && !ended();
       gfn = table_.next_active(gfn + 1, pages))
    look_again(gfn, outbox);
}

// Others have asked for this slot while it was on its way here: it goes on to the first of them.
void EngineCore::serve_asked(unsigned slot, Outbox& outbox) noexcept {
  for (;;) {
    ivy::SlotStep step;
    const bool more = slots_.with(slot, [&](ivy::SlotState& state) {
      ivy::Message ask;
      if (!ivy::next_asked(state, config_.self, slot, ask)) return false;
      ivy::on_slot_message(state, config_.self, ask, step);
      return true;
    });
    if (!more) return;
    do_slot_step(slot, step, outbox);
  }
}

// A host that has to go offers a page: it is asked for, and nobody waits for it.
bool EngineCore::adopt(Gfn gfn, Outbox& outbox) noexcept {
  PageEntry& entry = table_[gfn];
  const std::lock_guard guard(entry);
  if (ended() || draining_ || ivy::right_of(entry.state, view(gfn)) == Right::kExclusive)
    return true;
  start_unwaited(entry, gfn, {Right::kExclusive, Purpose::kMarker}, outbox);
  return true;
}

void EngineCore::offer(Gfn gfn, Outbox& outbox) noexcept {
  const HostMask heirs = heirs_.load();
  if (heirs == 0) return;
  ivy::Message offer{.kind = ivy::Kind::kOffer, .from = config_.self, .requester = config_.self};
  offer.gfn = gfn;
  const HostId manager = view(gfn).manager;
  if ((heirs & mask_of(manager)) != 0) {
    offer.to = manager;  // one message less
  } else {
    HostMask left = heirs;
    for (unsigned skip = SlotTable::slot_of(gfn) % std::popcount(heirs); skip > 0; --skip)
      left &= left - 1;
    offer.to = static_cast<HostId>(std::countr_zero(left));
  }
  post(offer, outbox);
}

// ---- calls of Membership

SlotTable EngineCore::slots() const { return slots_.table(); }

void EngineCore::forget_home() noexcept { home_.store(kNoHost); }

void EngineCore::learn_slots(const SlotTable& table) noexcept {
  if (server_.load() == pthread_t{}) {
    slots_.become(table);
  } else {
    slots_.learn(config_.self, table);
  }
}

Status EngineCore::add_peer(HostId host, const std::string& name) {
  const unsigned most = most_hosts();
  if (host >= most || (members() & mask_of(host)) != 0) {
    return Error{EINVAL, fmt::format("host {} cannot join as number {}: the domain has room for "
                                     "{} hosts, and the number must be nobody's",
                                     name, host, most)};
  }
  {
    const std::lock_guard guard(names_lock_);
    if (names_.size() <= host) names_.resize(host + 1u);
    names_[host] = name;
  }
  // One that had this number before does not count.
  lost_.fetch_and(~mask_of(host));
  sent_[host].reset();
  received_[host].reset();
  members_.fetch_or(mask_of(host));
  return {};
}

Status EngineCore::remove_peer(HostId host) {
  if (host == config_.self || host == home_.load() || host >= kMaxHosts ||
      (members() & mask_of(host)) == 0) {
    return Error{
        EINVAL, fmt::format("host {} cannot leave: it is no other member that can", name_of(host))};
  }
  for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot) {
    if (slots_.of_slot(slot).manager != host) continue;
    return Error{EBUSY, fmt::format("host {} cannot leave: host {} knows it as manager of slot {}; "
                                    "let it drain, and pass its slot table on first",
                                    name_of(host), name_of(config_.self), slot)};
  }
  members_.fetch_and(~mask_of(host));
  transport_.remove_peer(host);
  return {};
}

Status EngineCore::stopped_error() const { return Error{ECANCELED, stop_cause()}; }

Status EngineCore::check_hosts(HostMask hosts, bool with_self, const char* what) const {
  const bool good = hosts != 0 && (hosts & ~members()) == 0 &&
                    with_self == ((hosts & mask_of(config_.self)) != 0);
  if (!good)
    return Error{EINVAL, fmt::format("host {} cannot {}: name members of the domain, {} itself",
                                     name_of(config_.self), what, with_self ? "and" : "not")};
  if (without(Feature::kParallel))
    return Error{EINVAL, "slots cannot move in a domain that invalidates one by one"};
  return {};
}

Status EngineCore::take_slots(HostMask live) {
  if (Status status = check_hosts(live, true, "take slots"); !status) return status;
  SlotTable plan = slots();
  plan.rebalance(live);
  std::vector<unsigned> wanted;
  for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot) {
    if (plan.manager_of_slot(slot) == config_.self) wanted.push_back(slot);
  }
  const auto here = [this](unsigned slot) {
    const LiveSlots::Place place = slots_.of_slot(slot);
    return place.manager == config_.self && place.settled();
  };
  std::erase_if(wanted, here);
  for (std::size_t first = 0; first < wanted.size(); first += kTakenTogether) {
    std::vector<unsigned> some(wanted.begin() + static_cast<std::ptrdiff_t>(first),
                               wanted.begin() + static_cast<std::ptrdiff_t>(std::min(
                                                    first + kTakenTogether, wanted.size())));
    for (Rest rest; !some.empty();) {
      if (ended()) return stopped_error();
      if (stage_.load() != Stage::kRuns) {
        rest();
        continue;
      }
      Outbox outbox;
      for (unsigned slot : some) {
        const ivy::SlotStep step = slots_.with(
            slot, [&](ivy::SlotState& state) { return ivy::take_slot(state, config_.self, slot); });
        if (step.kind == ivy::SlotStep::Kind::kSend) post(step.message, outbox);
      }
      if (!outbox.empty()) send_all(outbox);
      rest();
      // Another host may have asked for it meanwhile, and has it then: so be it.
      std::erase_if(some, [&](unsigned slot) { return slots_.of_slot(slot).settled(); });
    }
  }
  return {};
}

// Starts what is needed for this host to lose the page. false: it has no right to it.
bool EngineCore::give_up(Gfn gfn, Outbox& outbox) noexcept {
  PageEntry& entry = table_[gfn];
  const std::lock_guard guard(entry);
  const Right held = ivy::right_of(entry.state, view(gfn));
  // A right may be on its way here, asked for before this host began to drain.
  if (held == Right::kInvalid) return entry.state.pending != 0;
  if (held == Right::kExclusive) {
    offer(gfn, outbox);
    return true;
  }
  const unsigned place = requests_.take_ahead_place();
  if (place == kNoPlace) return true;
  const std::uint32_t txn = requests_.arm(place, Purpose::kRelease, gfn);
  ivy::Steps steps;
  Event event(outbox);
  if (ivy::on_release(entry.state, view(gfn), gfn, txn, steps) != ivy::FaultStart::kStarted) {
    requests_.disarm(place);
    requests_.give_ahead_place(place);
    return true;
  }
  releases_.fetch_add(1);
  if (carry_out(entry, steps, event)) feed_all(entry, event, steps, true);
  return true;
}

bool EngineCore::holds(Gfn gfn) const noexcept {
  const std::lock_guard guard(table_[gfn]);
  const PageEntry& entry = table_[gfn];
  return ivy::right_of(entry.state, view(gfn)) != Right::kInvalid || entry.state.pending != 0;
}

// Until none of these pages is held here any more. false: the engine has ended.
bool EngineCore::give_up_all(std::vector<Gfn>& pages) {
  HintTimes hint;
  Rest rest;
  while (!pages.empty()) {
    if (ended()) return false;
    if (hint.due()) {
      Outbox outbox;
      for (Gfn gfn : pages) give_up(gfn, outbox);
      if (!outbox.empty()) send_all(outbox);
    }
    std::erase_if(pages, [this](Gfn gfn) { return !holds(gfn); });
    if (!pages.empty()) rest();
  }
  return true;
}

bool EngineCore::drain_pages() {
  for (bool any = true; any;) {
    any = false;
    std::vector<Gfn> some;
    const Gfn pages = table_.pages();
    for (Gfn gfn = table_.next_active(0, pages); gfn < pages;
         gfn = table_.next_active(gfn + 1, pages)) {
      if (!holds(gfn)) continue;
      any = true;
      some.push_back(gfn);
      if (some.size() == kGivenTogether && !give_up_all(some)) return false;
    }
    if (!give_up_all(some)) return false;
  }
  return true;
}

bool EngineCore::drain_slots(HostMask heirs) {
  std::bitset<SlotTable::kSlots> offered;
  HintTimes hint;
  for (Rest rest;;) {
    if (ended()) return false;
    if (hint.due()) offered.reset();
    SlotTable plan = slots();
    plan.rebalance(heirs);
    Outbox outbox;
    unsigned left = 0;
    for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot) {
      const LiveSlots::Place place = slots_.of_slot(slot);
      if (place.manager != config_.self && place.settled()) continue;
      if (++left > kTakenTogether * static_cast<unsigned>(std::popcount(heirs))) break;
      if (!place.settled() || offered[slot]) continue;
      offered.set(slot);
      ivy::Message offer{.kind = ivy::Kind::kSlotOffer, .from = config_.self};
      offer.requester = config_.self;
      offer.to = plan.manager_of_slot(slot);
      offer.moves = place.moves;
      offer.gfn = slot;
      post(offer, outbox);
    }
    if (!outbox.empty()) {
      send_all(outbox);
      rest = Rest();  // others have gone
    }
    if (left == 0) return true;
    rest();
  }
}

Status EngineCore::drain(HostMask heirs) {
  if (Status status = check_hosts(heirs, false, "drain"); !status) return status;
  draining_ = true;
  heirs_ = heirs;
  if (!drain_pages() || !drain_slots(heirs) || !drain_pages()) return stopped_error();
  for (Rest rest; releases_ != 0; rest()) {
    if (ended()) return stopped_error();
  }
  drained_ = true;
  return {};
}

Status EngineCore::settle() {
  std::vector<std::pair<unsigned, std::uint32_t>> under_way;
  for (unsigned place = 0; place < Requests::kPlaces; ++place) {
    if (const std::uint32_t txn = requests_.txn(place)) under_way.emplace_back(place, txn);
  }
  std::bitset<SlotTable::kSlots> coming;
  for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot)
    coming[slot] = slots_.of_slot(slot).arriving();
  for (Rest rest;;) {
    if (ended()) return stopped_error();
    std::erase_if(under_way,
                  [this](const auto& one) { return requests_.txn(one.first) != one.second; });
    for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot)
      coming[slot] = coming[slot] && slots_.of_slot(slot).arriving();
    if (under_way.empty() && coming.none()) return {};
    rest();
  }
}

}  // namespace xenspan::dsm
