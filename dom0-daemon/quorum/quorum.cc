#include "dom0-daemon/quorum/quorum.h"

#include <algorithm>
#include <bit>

namespace xenspan::quorum {
namespace {

template <typename Call>
void for_each(Members members, Call call) {
  for (; members != 0; members &= members - 1) call(static_cast<Member>(std::countr_zero(members)));
}

}  // namespace

// An echo is at most suspect + beat old when its host's death is noticed; two rounds of messages
// follow. The clocks' speeds may differ by grant / lease, a tenth.
Timing Timing::of(Time lost_after) {
  Timing timing{};
  timing.beat = std::max<Time>(lost_after / 20, 20);
  timing.suspect = lost_after * 5 / 6 - timing.beat;
  timing.grant = timing.suspect;
  timing.lease = timing.grant * 9 / 10;
  timing.give_up = 2 * lost_after;
  timing.join = 10 * lost_after;
  return timing;
}

Quorum::Quorum(const Setup& setup, Time now)
    : self_(setup.self),
      home_(setup.home),
      timing_(setup.timing),
      epoch_(setup.epoch),
      members_(setup.members),
      outside_((setup.members & bit(setup.self)) == 0),
      last_tick_(now) {}

void Quorum::join(Member member) {
  if (member >= kMaxMembers) return;
  leaving_ &= ~bit(member);
  if (!in(member)) joining_ |= bit(member);
}

// Stays in force when it is no member yet: a decision that counts it in may be under way.
void Quorum::leave(Member member, bool ended) {
  if (member >= kMaxMembers || member == self_) return;
  joining_ &= ~bit(member);
  leaving_ |= bit(member);
  if (ended && in(member)) ended_ |= bit(member);
}

void Quorum::give_home(Member heir) {
  if (heir < kMaxMembers && in(heir) && heir != home_) heir_ = heir;
}

unsigned Quorum::weight(Members of) const {
  const bool second = in(home_) && std::popcount(members_) % 2 == 0;
  return static_cast<unsigned>(std::popcount(of)) + (second && (of & bit(home_)) != 0 ? 1 : 0);
}

bool Quorum::majority(Members votes) const {
  return 2 * weight(votes & members_) > weight(members_);
}

// The first that is not suspected. Members agree on it as far as they hear each other.
bool Quorum::proposes(Member member) const {
  bool first = in(member);
  for_each(members_ & ~suspects_, [&](Member other) {
    if (rank(other) < rank(member)) first = false;
  });
  return first;
}

Time Quorum::lease_end(Time now) const {
  if (outside_) return 0;
  // The latest time that a majority has granted. Who has accepted a change grants nothing, not even
  // to itself.
  struct Echo {
    Time at;
    Member member;
  };
  std::array<Echo, kMaxMembers> echoes;  // only those of members are set
  std::size_t count = 0;
  for_each(members_, [&](Member member) {
    const Time own = accepted_.ballot != 0 ? accepted_at_ : now;
    echoes[count++] = {member == self_ ? own : peers_[member].got_grant, member};
  });
  std::sort(echoes.begin(), echoes.begin() + static_cast<std::ptrdiff_t>(count),
            [](const Echo& a, const Echo& b) { return a.at > b.at; });
  const unsigned all = weight(members_), of_home = weight(members_ & bit(home_));
  unsigned votes = 0;
  for (std::size_t i = 0; i < count; ++i) {
    votes += echoes[i].member == home_ ? of_home : 1;
    if (2 * votes > all) return echoes[i].at == 0 ? 0 : echoes[i].at + timing_.lease;
  }
  return 0;
}

void Quorum::tick(Time now, Output& out) {
  if (fenced_ || outside_) return;
  awake_ += std::clamp<Time>(now - last_tick_, 0, 2 * timing_.beat);
  last_tick_ = now;
  look_around();
  check_lease(now, out);
  if (fenced_) return;
  accept_when_free(now, out);
  propose(now, out);
  for_each(members_ & ~bit(self_), [&](Member member) { beat(member, now, out); });
}

void Quorum::look_around() {
  suspects_ = 0;
  for_each(members_ & ~bit(self_), [&](Member member) {
    const Time heard = peers_[member].heard;
    const bool silent = heard < 0 ? awake_ > timing_.join : awake_ - heard > timing_.suspect;
    if (silent) suspects_ |= bit(member);
  });
  if (majority(members_ & ~suspects_)) hopeful_ = awake_;
  // Two members that do not hear each other, while this one hears both.
  for_each(members_ & ~bit(self_), [&](Member member) {
    Peer& peer = peers_[member];
    const bool complains = (suspects_ & bit(member)) == 0 &&
                           (peer.suspects & members_ & ~suspects_ & ~bit(self_)) != 0;
    if (!complains) peer.complains = 0;
    if (complains && peer.complains == 0) peer.complains = awake_;
  });
}

void Quorum::check_lease(Time now, Output& out) {
  const bool valid = now < lease_end(now);
  armed_ = armed_ || valid;
  // One that has joined is not cut off while it waits for its first lease, but does not wait for
  // ever.
  if (!armed_ && (joined_ == 0 || awake_ - joined_ <= timing_.give_up)) return;
  if (armed_ && valid == held_) {
    held_ = !valid;
    held_since_ = awake_;
    out.events.push_back({valid ? Event::Kind::kResume : Event::Kind::kHold, epoch_, members_});
  }
  // Without a majority there is nothing to wait for.
  const bool hopeless = awake_ - hopeful_ > 2 * timing_.beat;
  if (armed_ && (!held_ || (!hopeless && awake_ - held_since_ <= timing_.give_up))) return;
  fenced_ = true;
  out.events.push_back({Event::Kind::kFenced, epoch_, suspects_});
}

// Whom this member would go on without.
Members Quorum::to_leave() const {
  Members leave = suspects_;
  std::array<unsigned, kMaxMembers> complaints{};
  const auto patient = [&](Member member) {
    const Time since = peers_[member].complains;
    return since == 0 || awake_ - since < timing_.suspect / 2;
  };
  // The one that most complain about or that complains most; of equals, the last.
  for (;;) {
    complaints.fill(0);
    for_each(members_ & ~leave & ~bit(self_), [&](Member member) {
      if (patient(member)) return;
      for_each(peers_[member].suspects & members_ & ~leave & ~bit(self_), [&](Member other) {
        ++complaints[member];
        ++complaints[other];
      });
    });
    Member worst = self_;
    for_each(members_ & ~leave & ~bit(self_), [&](Member member) {
      if (complaints[member] != 0 && complaints[member] >= complaints[worst] && member != home_)
        worst = member;
    });
    if (worst == self_) return leave;
    leave |= bit(worst);
  }
}

void Quorum::propose(Time now, Output& out) {
  const Members leave = to_leave();
  bool open = accepted_.ballot != 0;
  for_each(members_ & ~bit(self_), [&](Member member) { open = open || peers_[member].open; });
  const Members value = wanted(leave);
  const Member home = wanted_home(value);
  if (!proposes(self_) || (value == members_ && home == home_ && !open)) {
    proposal_ = {};
    wanted_since_ = 0;
    return;
  }
  if (wanted_since_ == 0) wanted_since_ = awake_;
  // Hosts that died together are to leave together.
  if (leave != 0 && awake_ - wanted_since_ < timing_.beat) return;
  const bool fits = proposal_.ballot != 0 && promised_ == proposal_.ballot &&
                    (proposal_.accepting || (proposal_.value == value && proposal_.home == home));
  // A proposal waits for grants to run out, and once more for what was lost on the way.
  if (fits && awake_ - proposal_.since <= 2 * timing_.grant) return ask(out);
  proposal_ = {};
  const Ballot round = std::max({highest_, promised_, waiting_.ballot}) / kMaxMembers + 1;
  proposal_.ballot = round * kMaxMembers + self_;
  proposal_.value = value;
  proposal_.home = home;
  proposal_.since = awake_;
  promised_ = proposal_.ballot;
  waiting_ = {};
  ask(out);
  Message own = message(Message::Kind::kPromise, self_);
  own.ballot = proposal_.ballot;
  own.accepted = accepted_.ballot;
  own.value = accepted_.value;
  own.value_home = accepted_.home;
  count_promise(own, now, out);
}

// To those who have not answered yet.
void Quorum::ask(Output& out) {
  const auto kind = proposal_.accepting ? Message::Kind::kAccept : Message::Kind::kPrepare;
  for_each(members_ & proposal_.value & ~proposal_.answered & ~bit(self_), [&](Member member) {
    Message asked = message(kind, member);
    asked.ballot = proposal_.ballot;
    asked.value = proposal_.value;
    asked.value_home = proposal_.home;
    asked.ended = ended_;
    out.messages.push_back(asked);
  });
}

void Quorum::count_promise(const Message& message, Time now, Output& out) {
  if (proposal_.ballot == 0 || message.ballot != proposal_.ballot || proposal_.accepting) return;
  proposal_.answered |= bit(message.from);
  if (message.accepted > proposal_.found.ballot)
    proposal_.found = {message.accepted, message.value, message.value_home, 0};
  if (!majority(proposal_.answered)) return;
  proposal_.accepting = true;
  proposal_.answered = 0;
  if (proposal_.found.ballot != 0) {
    proposal_.value = proposal_.found.value;
    proposal_.home = proposal_.found.home;
  }
  ask(out);
  if ((proposal_.value & bit(self_)) == 0) return;
  waiting_ = {proposal_.ballot, proposal_.value, proposal_.home, ended_};
  accept_when_free(now, out);
}

void Quorum::accept_when_free(Time now, Output& out) {
  if (waiting_.ballot == 0) return;
  bool free = true;
  for_each(members_ & ~waiting_.value & ~waiting_.ended,
           [&](Member member) { free = free && peers_[member].granted <= now; });
  if (!free) return;
  if (accepted_.ballot == 0) accepted_at_ = now;
  accepted_ = waiting_;
  waiting_ = {};
  const auto proposer = static_cast<Member>(accepted_.ballot % kMaxMembers);
  if (proposer == self_) return count_accepted(self_, now, out);
  Message answer = message(Message::Kind::kAccepted, proposer);
  answer.ballot = accepted_.ballot;
  out.messages.push_back(answer);
}

void Quorum::count_accepted(Member from, Time now, Output& out) {
  proposal_.answered |= bit(from);
  if (!majority(proposal_.answered)) return;
  const Members before = members_;
  enter(epoch_ + 1, proposal_.value, proposal_.home, now, out);
  // Those who are out are told as well.
  for_each((before | members_) & ~bit(self_), [&](Member member) { beat(member, now, out); });
}

void Quorum::enter(Epoch epoch, Members members, Member home, Time now, Output& out) {
  const Members gone = members_ & ~members;
  for_each(members & ~(outside_ ? 0 : members_), [&](Member member) {
    peers_[member] = {};
    peers_[member].heard = awake_;
  });
  epoch_ = epoch;
  members_ = members;
  home_ = home;
  if (outside_) joined_ = awake_;
  outside_ = false;
  joining_ &= ~members;
  leaving_ &= members;
  if (home_ != self_) joining_ = leaving_ = 0;  // not this one's to ask for any more
  if (home_ != self_ || heir_ >= kMaxMembers || !in(heir_)) heir_ = kNobody;
  ended_ &= members;
  promised_ = highest_ = 0;
  waiting_ = accepted_ = {};
  proposal_ = {};
  wanted_since_ = 0;
  for (Peer& peer : peers_) {
    // What others had granted in the epoch before has run out when this has.
    peer.granted = now + timing_.grant;
    peer.open = false;
    peer.suspects = 0;
    peer.complains = 0;
  }
  look_around();
  out.events.push_back({Event::Kind::kEpoch, epoch_, members_});
  if (gone != 0) out.events.push_back({Event::Kind::kGone, epoch_, gone});
  if (in(self_)) return;
  fenced_ = true;
  out.events.push_back({Event::Kind::kFenced, epoch_, suspects_});
}

void Quorum::receive(const Message& message, Time now, Output& out) {
  const Member from = message.from;
  if (fenced_ || message.to != self_ || from >= kMaxMembers || from == self_) return;
  if (message.home >= kMaxMembers || message.value_home >= kMaxMembers) return;
  if (message.epoch < epoch_) {
    // Of an old epoch: all it is told is that there is a newer one.
    if (!outside_) beat(from, now, out);
    return;
  }
  if (message.epoch == epoch_) {
    if (outside_ || !in(from)) return;
  } else {
    // Who is in an epoch speaks for it.
    if ((message.members & bit(from)) == 0) return;
    if (outside_ && (message.members & bit(self_)) == 0) return;
    enter(message.epoch, message.members, message.home, now, out);
    if (fenced_) return;
  }
  highest_ = std::max(highest_, message.ballot);
  switch (message.kind) {
    case Message::Kind::kBeat: return on_beat(message, now);
    case Message::Kind::kPrepare: {
      if (!proposes(from) || message.ballot < promised_) return;
      promised_ = message.ballot;
      if (waiting_.ballot < promised_) waiting_ = {};
      Message promise = this->message(Message::Kind::kPromise, from);
      promise.ballot = promised_;
      promise.accepted = accepted_.ballot;
      promise.value = accepted_.value;
      promise.value_home = accepted_.home;
      out.messages.push_back(promise);
      return;
    }
    case Message::Kind::kPromise: return count_promise(message, now, out);
    case Message::Kind::kAccept: {
      if (!proposes(from) || message.ballot < promised_) return;
      if ((message.value & bit(self_)) == 0) return;
      promised_ = message.ballot;
      waiting_ = {message.ballot, message.value, message.value_home, message.ended};
      return accept_when_free(now, out);
    }
    case Message::Kind::kAccepted:
      if (proposal_.ballot != 0 && proposal_.accepting && message.ballot == proposal_.ballot)
        count_accepted(from, now, out);
      return;
  }
}

void Quorum::on_beat(const Message& message, Time now) {
  Peer& peer = peers_[message.from];
  const bool leaves = waiting_.ballot != 0 && (waiting_.value & bit(message.from)) == 0;
  peer.sent = std::max(peer.sent, message.sent);
  if (accepted_.ballot == 0 && !leaves) {
    peer.sent_granted = std::max(peer.sent_granted, message.sent);
    peer.granted = std::max(peer.granted, now + timing_.grant);
  }
  if (message.echo > peer.echoed && message.echo <= now) {
    peer.echoed = message.echo;
    peer.heard = awake_;
  }
  if (message.granted <= now) peer.got_grant = std::max(peer.got_grant, message.granted);
  peer.suspects = message.suspects;
  peer.open = message.open;
}

void Quorum::beat(Member to, Time now, Output& out) const {
  Message beat = message(Message::Kind::kBeat, to);
  const bool leaves = waiting_.ballot != 0 && (waiting_.value & bit(to)) == 0;
  beat.sent = now;
  beat.echo = peers_[to].sent;
  beat.granted = accepted_.ballot != 0 || leaves || !in(to) ? 0 : peers_[to].sent_granted;
  beat.suspects = suspects_;
  beat.open = accepted_.ballot != 0;
  beat.ballot = promised_;
  out.messages.push_back(beat);
}

Message Quorum::message(Message::Kind kind, Member to) const {
  Message made;
  made.kind = kind;
  made.from = self_;
  made.to = to;
  made.epoch = epoch_;
  made.members = members_;
  made.home = home_;
  return made;
}

}  // namespace xenspan::quorum
