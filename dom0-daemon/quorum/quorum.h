// Which hosts are members of a domain, and which of them may run: one member's view of it.
//
// A pure state machine: messages and the time come in, messages and events go out. It knows no
// clock, socket, process or host name, so the same code runs in xenspand and under the simulator
// (tests/sim/quorum_world.h). README.md has the rules and why they are safe.
//
//   Beats. Every member sends every other a beat with its clock's time. The other gives that time
//     back in its own next beat (the echo), and says whether it *grants*: promises to go on with
//     that member for a while.
//   Lease. A member whose beats of time t or later a majority has granted may run until t + lease.
//     After that its vCPUs stand still; the next majority of grants lets them go on.
//   Loss. Who has not echoed for `suspect` is suspected. The first member that is not suspected
//     (the home, then by number) proposes to go on without: one round of Paxos an epoch. A member
//     accepts only when its own grants to those who are to go have run out, and grants nothing to
//     anybody from then until the new epoch. So no member of the new epoch exists while one that
//     is not in it may run.
//   Changes that are wanted. The home asks for a host to join or to leave by the same decision. One
//     that joins takes part from the epoch on that counts it in. One that leaves has ended before,
//     and the home knows: nobody has to wait for what was granted to it. Which member is the home
//     belongs to the decision, too: the home may ask for another one.
//   Majority. A vote each, and a second one for the home when the number of members is even: of two
//     members the home decides, of two halves the one with the home.
//
// Threading: one thread. Ownership: a plain value. Errors: none; what no correct member sends is
// ignored. Sources: Gray and Cheriton, Leases (SOSP 1989); Lamport, Paxos made simple (2001).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace xenspan::quorum {

using Member = std::uint8_t;  // index among the domain's hosts
inline constexpr unsigned kMaxMembers = 64;
using Members = std::uint64_t;  // one bit a member
constexpr Members bit(Member member) { return Members{1} << member; }

using Epoch = std::uint32_t;   // counts the memberships of a domain, from 1
using Ballot = std::uint64_t;  // round * kMaxMembers + proposer; 0: none
// Milliseconds of the member's own clock, which runs while the machine sleeps and never goes back.
using Time = std::int64_t;

struct Timing {
  Time beat;     // between ticks
  Time suspect;  // without an echo
  Time grant;    // what a member promises to a member whose beat it has had
  Time lease;    // shorter than grant: the difference is for clocks that run at different speeds
  Time give_up;  // without a lease
  Time join;     // for the first echo of a member
  // Everything follows from the time within which a loss is to be agreed on.
  static Timing of(Time lost_after);
};

struct Message {
  enum class Kind : std::uint8_t { kBeat, kPrepare, kPromise, kAccept, kAccepted };
  Kind kind = Kind::kBeat;
  Member from = 0, to = 0;
  Epoch epoch = 0;      // the sender's ..
  Members members = 0;  // .. who is in it ..
  Member home = 0;      // .. and which of them is the home
  Ballot ballot = 0;    // kBeat: the highest the sender has promised
  // kBeat
  Time sent = 0;         // by the sender's clock
  Time echo = 0;         // the newest `sent` of the receiver that has come
  Time granted = 0;      // the newest that counts for its lease; 0: none now
  Members suspects = 0;  // whom the sender does not hear
  bool open = false;     // it has accepted something and knows no outcome
  // kPromise: the ballot last accepted, 0: none
  Ballot accepted = 0;
  // kPromise: what was accepted; kAccept: who is to be a member, and the home
  Members value = 0;
  Member value_home = 0;
  // kAccept: who is known not to run any more, and never will in this epoch
  Members ended = 0;
};

struct Event {
  enum class Kind : std::uint8_t {
    kHold,    // the lease is over: vCPUs here stand still
    kResume,  // there is a lease again
    kEpoch,   // `members` are in `epoch`
    kGone,    // `members` are not in it, and were in the one before; follows kEpoch
    kFenced,  // this member is out for good: not in `epoch`, or without a lease for too long
  };
  Kind kind;
  Epoch epoch;
  Members members;
};

struct Output {
  std::vector<Message> messages;
  std::vector<Event> events;
};

class Quorum {
 public:
  struct Setup {
    Member self = 0, home = 0;
    // Who is in `epoch`. Without `self`: this one joins, and takes part in a later epoch first.
    Members members = 0;
    Epoch epoch = 1;
    Timing timing{};
  };
  Quorum(const Setup& setup, Time now);

  // To be called about every `beat`; a gap counts as twice that at most, so that a host that stood
  // still does not take the others for lost.
  void tick(Time now, Output& out);
  void receive(const Message& message, Time now, Output& out);

  // At the home: another is to be a member, or is not to be one any more; `ended`: it is certain
  // that it does not run and never will as the member it was. The next ticks carry it out.
  void join(Member member);
  void leave(Member member, bool ended);
  // At the home: that member is to be it from now on. One that is none, or leaves first, is not.
  void give_home(Member heir);
  // What was asked for has come about, or cannot any more.
  bool settled() const {
    return fenced_ || ((joining_ | (leaving_ & members_)) == 0 && heir_ == kNobody);
  }

  Epoch epoch() const { return epoch_; }
  Members members() const { return members_; }
  // It may have left the domain since.
  Member home() const { return home_; }
  Members suspects() const { return suspects_; }
  // vCPUs may run here while the member's clock says less than this; 0: not yet.
  Time lease_end(Time now) const;
  bool holding() const { return held_; }
  bool fenced() const { return fenced_; }
  bool outside() const { return outside_; }

 private:
  struct Peer {
    Time sent = 0;          // by its clock: the newest that has come ..
    Time sent_granted = 0;  // .. and the newest that was granted
    Time granted = 0;       // until when, by this member's clock
    Time echoed = 0;        // by this member's clock: the newest that has come there ..
    Time got_grant = 0;     // .. and that was granted there
    Time heard = -1;        // awake_ at the last new echo; -1: none yet
    Time complains = 0;  // awake_ since when it has suspected somebody this member hears; 0: none
    Members suspects = 0;
    bool open = false;
  };
  struct Choice {
    Ballot ballot = 0;
    Members value = 0;
    Member home = 0;
    Members ended = 0;
  };
  struct Proposal {
    Ballot ballot = 0;  // 0: none
    Members value = 0;
    Member home = 0;
    bool accepting = false;
    Members answered = 0;
    Choice found{};  // of the promises, the latest accepted
    Time since = 0;  // awake_
  };

  bool in(Member member) const { return (members_ & bit(member)) != 0; }
  unsigned rank(Member member) const { return member == home_ ? 0 : 1U + member; }
  unsigned weight(Members of) const;
  bool majority(Members votes) const;
  bool proposes(Member member) const;
  void look_around();
  Members to_leave() const;
  Members wanted(Members leave) const { return (members_ | joining_) & ~(leave | leaving_); }
  Member wanted_home(Members value) const {
    return heir_ < kMaxMembers && (value & members_ & bit(heir_)) != 0 ? heir_ : home_;
  }
  void check_lease(Time now, Output& out);
  void propose(Time now, Output& out);
  void ask(Output& out);
  void accept_when_free(Time now, Output& out);
  void count_promise(const Message& message, Time now, Output& out);
  void count_accepted(Member from, Time now, Output& out);
  void on_beat(const Message& message, Time now);
  void enter(Epoch epoch, Members members, Member home, Time now, Output& out);
  void beat(Member to, Time now, Output& out) const;
  Message message(Message::Kind kind, Member to) const;

  static constexpr Member kNobody = 255;
  Member self_, home_;
  Member heir_ = kNobody;
  Timing timing_;
  Epoch epoch_;
  Members members_;
  bool outside_;  // not a member yet
  Members joining_ = 0, leaving_ = 0, ended_ = 0;
  std::array<Peer, kMaxMembers> peers_{};
  Time awake_ = 1;  // time in which this member has been running
  Time last_tick_;
  Members suspects_ = 0;
  bool armed_ = false, held_ = false, fenced_ = false;
  // By awake_:
  Time held_since_ = 0;
  Time joined_ = 0;        // 0: from the beginning, or not yet
  Time hopeful_ = 0;       // this member heard a majority last
  Time wanted_since_ = 0;  // a change has been wanted since
  // Of this epoch, as acceptor:
  Ballot promised_ = 0;
  Choice waiting_{};  // to be accepted when the grants have run out
  Choice accepted_{};
  Time accepted_at_ = 0;
  // As proposer:
  Proposal proposal_{};
  Ballot highest_ = 0;  // seen
};

}  // namespace xenspan::quorum
