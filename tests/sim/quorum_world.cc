#include "tests/sim/quorum_world.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace xenspan::sim {
namespace {

using namespace xenspan::quorum;
using Micros = std::int64_t;  // of the world's own clock

constexpr Time kLostAfter = 3000;
constexpr Micros kMs = 1000;
constexpr Micros kLostAfterUs = kLostAfter * kMs;

struct Machine {
  Quorum quorum;
  double rate = 1;
  Time offset = 0;
  bool crashed = false;
  Micros stands_until = 0;
  Time lease_end = 0;  // as the slice was told last
  Epoch epoch = 1;
  Epoch absent = 0;       // the newest that anybody is in without it
  std::size_t birth = 0;  // counts the machines that have had this number
  bool lingers = false;   // said to have ended, and has not (planted)
};

struct Happening {
  Micros at;
  std::uint64_t order;
  enum class Kind : std::uint8_t { kTick, kMessage, kFault } kind;
  Member member = 0;
  Message message{};
  std::size_t fault = 0;
  bool operator<(const Happening& other) const {
    return at != other.at ? at > other.at : order > other.order;
  }
};

struct Fault {
  enum class Kind : std::uint8_t {
    kCrash,
    kCut,
    kHeal,
    kOneWay,
    kSlow,
    kCalm,
    kJoin,
    kLeave,
    kMove
  } kind;
  Micros at;
  Member member = 0;
  Members side = 0;
  Micros length = 0;
};

class World {
 public:
  World(const QuorumOptions& options, QuorumCounts& counts)
      : options_(options), counts_(counts), random_(options.seed) {}
  std::string run();

 private:
  std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : random_() % bound; }
  bool chance(unsigned percent) { return below(100) < percent; }
  bool planted(QuorumError error) const { return options_.error == error; }
  void build();
  void plan();
  Time clock(const Machine& machine) const {
    return machine.offset + static_cast<Time>(static_cast<double>(now_) * machine.rate / kMs);
  }
  Time clock_at(const Machine& machine) const { return clock(machine); }
  bool runs(Member member) const;
  void push(Micros at, Happening happening);
  void happen(const Happening& what);
  void strike(const Fault& fault);
  void step(Member member, const Message* message);
  void deliver(Member from, Output& out);
  void send(const Message& message);
  void check(Member stepped);
  void check_end();
  void fail(const std::string& what) {
    if (failure_.empty()) failure_ = what;
  }
  Quorum::Setup setup_of(Member member) const;
  void plan_members(Micros from);
  void join(Member member);
  void leave(Member member);
  void move_home(Member heir);
  Machine& home() { return machines_[home_]; }

  const QuorumOptions options_;
  QuorumCounts& counts_;
  std::mt19937_64 random_;
  unsigned hosts_ = 3;  // that there are; the domain begins on the first of them
  unsigned first_ = 3;
  std::vector<Machine> machines_;
  std::vector<Fault> faults_;
  std::priority_queue<Happening> queue_;
  std::uint64_t order_ = 0;
  Micros now_ = 0, calm_ = 0, end_ = 0;
  Micros delay_ = 5 * kMs;
  unsigned loss_ = 0, spike_ = 0;                       // per cent
  std::vector<Members> heard_from_;                     // by receiver: who reaches it
  std::map<Epoch, std::pair<Members, Member>> epochs_;  // and the home
  Member home_ = 0;                                     // whose daemon acts as the home's, since ..
  Epoch home_epoch_ = 1;
  Member crash_after_ = 0xff;
  std::uint64_t crash_step_ = 0, steps_ = 0;
  // Strikes when the n-th message of a kind is sent.
  struct Trap {
    Message::Kind kind{};
    std::uint64_t countdown = 0;  // 0: none
    enum class Does : std::uint8_t {
      kCrashSender,
      kCrashReceiver,
      kCutSender,
      kCutReceiver
    } does{};
  } trap_;
  void spring(const Message& message);
  // A simple schedule: one remote host crashes, nothing else happens.
  bool simple_ = false;
  bool coming_ = false;  // hosts come and go
  Members simple_lost_ = 0;
  Micros simple_at_ = 0;
  Output out_;  // of one step
  std::string failure_;
};

Quorum::Setup World::setup_of(Member member) const {
  Quorum::Setup setup;
  setup.self = member;
  setup.home = planted(QuorumError::kTwoHomes) && member >= hosts_ / 2
                   ? static_cast<Member>(hosts_ - 1)
                   : Member{0};
  setup.members = bit(static_cast<Member>(first_)) - 1;
  setup.timing = Timing::of(kLostAfter);
  if (planted(QuorumError::kGrantTooShort)) setup.timing.grant = 300;
  if (planted(QuorumError::kGrantTooShort)) setup.timing.suspect = 600;
  return setup;
}

void World::build() {
  hosts_ = 2 + static_cast<unsigned>(below(chance(5) ? 8 : 4));
  if (planted(QuorumError::kTwoHomes)) hosts_ = 4;
  if (planted(QuorumError::kPromiseForgets)) hosts_ = 6;
  first_ = hosts_;
  coming_ =
      !planted(QuorumError::kTwoHomes) && !planted(QuorumError::kPromiseForgets) &&
      (chance(50) || planted(QuorumError::kEndsLater) || planted(QuorumError::kJoinsUnasked) ||
       planted(QuorumError::kJoinsAnew) || planted(QuorumError::kHomeUntold));
  if (coming_) {
    first_ = 1 + static_cast<unsigned>(below(hosts_));
    if (first_ == hosts_) ++hosts_;
  }
  heard_from_.assign(hosts_, ~Members{0});
  for (unsigned i = 0; i < hosts_; ++i) {
    const auto offset = static_cast<Time>(1000 + below(1'000'000));
    machines_.push_back({Quorum(setup_of(static_cast<Member>(i)), offset)});
    machines_.back().offset = offset;
    machines_.back().rate = 1 + (static_cast<double>(below(81)) - 40) / 1000;
    if (planted(QuorumError::kClockRuns) && i % 2 == 1) machines_.back().rate = 3;
    epochs_[1] = {setup_of(0).members, 0};
    machines_.back().crashed = i >= first_;  // nothing of the domain is there yet
    push(static_cast<Micros>(below(150) * kMs),
         {0, 0, Happening::Kind::kTick, static_cast<Member>(i), {}, 0});
  }
}

// Hosts are asked to join and to leave and the home to move, also while others are on their way.
void World::plan_members(Micros at) {
  const auto count = 1 + below(6);
  for (std::uint64_t i = 0; i < count; ++i) {
    at += static_cast<Micros>(below(chance(50) ? 300 : 3000)) * kMs;
    const auto member = static_cast<Member>(below(hosts_));
    const auto kind = below(100);
    faults_.push_back({kind < 45   ? Fault::Kind::kJoin
                       : kind < 75 ? Fault::Kind::kLeave
                                   : Fault::Kind::kMove,
                       at, member, 0, 0});
  }
}

void World::join(Member member) {
  Machine& home = this->home();
  Machine& machine = machines_[member];
  const bool known = (home.quorum.members() & bit(member)) != 0;
  const bool again = planted(QuorumError::kJoinsAnew) && known;
  if (home.crashed || home.stands_until > now_ || home.quorum.fenced()) return;
  if (member == home_ || (!again && (known || !machine.crashed))) return;  // the daemons refuse it
  ++counts_.joins;
  Quorum::Setup setup = setup_of(member);
  setup.members = home.quorum.members() & ~bit(member);
  setup.epoch = home.quorum.epoch();
  setup.home = home.quorum.home();
  if (planted(QuorumError::kJoinsUnasked)) setup.members |= bit(member);
  if (again) --setup.epoch;
  machine.quorum = Quorum(setup, clock(machine));
  machine.epoch = setup.epoch;
  machine.crashed = machine.lingers = false;
  machine.stands_until = 0;
  machine.lease_end = 0;
  ++machine.birth;
  home.quorum.join(member);
  push(now_, {0, 0, Happening::Kind::kTick, member, {}, machine.birth});
}

// Its slice has ended, and the home has heard of it.
void World::leave(Member member) {
  Machine& home = this->home();
  Machine& machine = machines_[member];
  if (home.crashed || home.stands_until > now_ || home.quorum.fenced() || machine.crashed) return;
  if (member == home_) return;
  ++counts_.leaves;
  if (planted(QuorumError::kEndsLater))
    machine.lingers = true;
  else
    machine.crashed = true;
  home.quorum.leave(member, true);
}

void World::move_home(Member heir) {
  Machine& home = this->home();
  if (home.crashed || home.stands_until > now_ || home.quorum.fenced() || heir == home_) return;
  ++counts_.moves;
  home.quorum.give_home(heir);
}

void World::plan() {
  delay_ = static_cast<Micros>(chance(70) ? 1 + below(20) : 1 + below(300)) * kMs;
  simple_ = chance(15);
  if (simple_) delay_ = static_cast<Micros>(1 + below(10)) * kMs;
  if (!simple_ && chance(40)) loss_ = static_cast<unsigned>(below(15));
  if (!simple_ && chance(30)) spike_ = static_cast<unsigned>(1 + below(5));
  Micros at = kLostAfterUs;
  const auto some_side = [&] { return below((std::uint64_t{1} << hosts_) - 1) + 1; };
  if (simple_) {
    const auto member = static_cast<Member>(1 + below(first_ - 1));
    at += static_cast<Micros>(below(1000)) * kMs;
    if (first_ > 1) faults_.push_back({Fault::Kind::kCrash, at, member, 0, 0});
    simple_lost_ = first_ > 1 ? bit(member) : 0;
    simple_at_ = at;
  } else {
    const auto count = below(7);
    for (std::uint64_t i = 0; i < count; ++i) {
      // Often while the one before is being dealt with.
      at += static_cast<Micros>(below(chance(50) ? 400 : 4000)) * kMs;
      Fault fault{Fault::Kind::kCrash, at, static_cast<Member>(below(hosts_)), some_side(), 0};
      const auto kind = below(100);
      if (kind < 20)
        fault.kind = Fault::Kind::kCrash;
      else if (kind < 50)
        fault.kind = Fault::Kind::kCut;
      else if (kind < 60)
        fault.kind = Fault::Kind::kHeal;
      else if (kind < 70)
        fault.kind = Fault::Kind::kOneWay;
      else
        fault.kind = Fault::Kind::kSlow;
      if (fault.kind == Fault::Kind::kSlow)
        fault.length = static_cast<Micros>(below(chance(60) ? 1500 : 8000)) * kMs;
      faults_.push_back(fault);
    }
    if (chance(40)) {
      trap_.kind = static_cast<Message::Kind>(1 + below(4));
      trap_.countdown = 1 + below(8);
      trap_.does = static_cast<Trap::Does>(below(4));
    }
    if (chance(30)) {
      crash_after_ = static_cast<Member>(below(hosts_));
      crash_step_ = 50 + below(2500);
    }
  }
  if (planted(QuorumError::kPromiseForgets)) {
    // The one that knows the decision is cut off before anybody has heard of it.
    faults_ = {{Fault::Kind::kCrash, at, 5, 0, 0}};
    trap_ = {Message::Kind::kAccepted, 2, Trap::Does::kCutReceiver};
    simple_ = false;
    at += 3 * kLostAfterUs;
  }
  if (!simple_ && coming_) plan_members(kLostAfterUs / 2);
  for (const Fault& fault : faults_) at = std::max(at, fault.at);
  // In the end the network is whole or cut in two, and quick.
  faults_.push_back(
      {Fault::Kind::kCalm, at + 100 * kMs, 0, !simple_ && chance(50) ? some_side() : 0, 0});
  calm_ = at + 100 * kMs;
  end_ = calm_ + 5 * kLostAfterUs;
  for (std::size_t i = 0; i < faults_.size(); ++i)
    push(faults_[i].at, {0, 0, Happening::Kind::kFault, 0, {}, i});
}

void World::push(Micros at, Happening happening) {
  happening.at = std::max(at, now_);
  happening.order = ++order_;
  queue_.push(happening);
}

std::string World::run() {
  build();
  plan();
  while (!queue_.empty() && failure_.empty()) {
    const Happening next = queue_.top();
    if (next.at > end_) break;
    queue_.pop();
    now_ = next.at;
    happen(next);
  }
  if (failure_.empty()) check_end();
  ++counts_.schedules;
  counts_.epochs += epochs_.size();
  return failure_;
}

void World::happen(const Happening& what) {
  if (what.kind == Happening::Kind::kFault) return strike(faults_[what.fault]);
  Machine& machine = machines_[what.member];
  if (machine.crashed || (what.kind == Happening::Kind::kTick && what.fault != machine.birth))
    return;
  if (machine.stands_until > now_) return push(machine.stands_until, what);
  ++counts_.events;
  if (what.kind == Happening::Kind::kMessage) return step(what.member, &what.message);
  step(what.member, nullptr);
  const auto period = static_cast<double>(Timing::of(kLostAfter).beat * kMs) / machine.rate;
  push(now_ + static_cast<Micros>(period) + static_cast<Micros>(below(10)) * kMs,
       {0, 0, Happening::Kind::kTick, what.member, {}, machine.birth});
}

void World::strike(const Fault& fault) {
  if (options_.trace)
    fmt::print("{:8d} fault {} member {} side {:x}\n", now_ / kMs, static_cast<int>(fault.kind),
               fault.member, fault.side);
  const auto whole = [&] { heard_from_.assign(hosts_, ~Members{0}); };
  const auto cut = [&] {
    for (unsigned i = 0; i < hosts_; ++i)
      heard_from_[i] &= (fault.side >> i & 1) != 0 ? fault.side : ~fault.side;
  };
  switch (fault.kind) {
    case Fault::Kind::kJoin: return join(fault.member);
    case Fault::Kind::kLeave: return leave(fault.member);
    case Fault::Kind::kMove: return move_home(fault.member);
    case Fault::Kind::kCrash:
      if (machines_[fault.member].crashed) return;
      ++counts_.crashes;
      machines_[fault.member].crashed = true;
      return;
    case Fault::Kind::kCut: ++counts_.cuts; return cut();
    case Fault::Kind::kHeal: return whole();
    case Fault::Kind::kOneWay:
      ++counts_.cuts;
      heard_from_[fault.member] &= fault.side;
      return;
    case Fault::Kind::kSlow: {
      ++counts_.slow;
      Machine& machine = machines_[fault.member];
      machine.stands_until = now_ + fault.length;
      if (planted(QuorumError::kMemberForgets) && fault.member < first_) {
        machine.quorum = Quorum(setup_of(fault.member), clock(machine));
        machine.stands_until = 0;
      }
      return;
    }
    case Fault::Kind::kCalm:
      whole();
      if (fault.side != 0) cut();
      delay_ = 5 * kMs;
      loss_ = spike_ = 0;
      return;
  }
}

void World::step(Member member, const Message* message) {
  Machine& machine = machines_[member];
  Output& out = out_;
  out.messages.clear();
  out.events.clear();
  const Time now = clock(machine);
  if (message == nullptr) {
    machine.quorum.tick(now, out);
  } else {
    machine.quorum.receive(*message, now, out);
  }
  if (member == crash_after_ && now_ < calm_ && ++steps_ == crash_step_) {
    // In the middle: some of its messages are out.
    out.messages.resize(below(out.messages.size() + 1));
    machine.crashed = true;
    ++counts_.crashes;
  }
  machine.lease_end = machine.quorum.lease_end(now);
  for (const Event& event : out.events) {
    if (options_.trace)
      fmt::print("{:8d} member {} event {} epoch {} members {:x}\n", now_ / kMs, member,
                 static_cast<int>(event.kind), event.epoch, event.members);
    if (event.kind == Event::Kind::kFenced) ++counts_.fenced;
    if (event.kind == Event::Kind::kHold) ++counts_.holds;
    if (event.kind == Event::Kind::kResume) ++counts_.resumed;
    if (event.kind == Event::Kind::kGone && (event.members & bit(machine.quorum.home())) != 0)
      ++counts_.lost_homes;
    if (event.kind == Event::Kind::kGone && simple_)
      counts_.slowest_ms = std::max(counts_.slowest_ms, (now_ - simple_at_) / kMs);
    if (event.kind == Event::Kind::kGone && simple_ && now_ - simple_at_ > kLostAfterUs)
      fail(fmt::format("member {} learned of the loss after {} ms", member,
                       (now_ - simple_at_) / kMs));
  }
  for (const Message& each : out.messages) send(each);
  check(member);
}

void World::send(const Message& message) {
  if (message.to >= hosts_) return fail("a message to nobody");
  const bool sprung =
      trap_.countdown != 0 && message.kind == trap_.kind && now_ < calm_ && --trap_.countdown == 0;
  if (sprung) spring(message);
  if (!sprung && ((heard_from_[message.to] & bit(message.from)) == 0 || below(100) < loss_)) return;
  Message sent = message;
  if (planted(QuorumError::kEchoForged) && sent.kind == Message::Kind::kBeat)
    sent.granted = clock(machines_[sent.to]);
  if (planted(QuorumError::kPromiseForgets) && sent.kind == Message::Kind::kPromise)
    sent.accepted = sent.value = 0;
  if (planted(QuorumError::kHomeUntold)) sent.home = 0;
  if (planted(QuorumError::kAcceptsLost) && sent.kind == Message::Kind::kAccepted) return;
  Micros delay = 50 + static_cast<Micros>(below(static_cast<std::uint64_t>(delay_)));
  if (spike_ != 0 && below(100) < spike_) delay += static_cast<Micros>(below(4000)) * kMs;
  push(now_ + delay, {0, 0, Happening::Kind::kMessage, message.to, sent, 0});
}

// The message itself still arrives.
void World::spring(const Message& message) {
  const bool sender =
      trap_.does == Trap::Does::kCrashSender || trap_.does == Trap::Does::kCutSender;
  const Member member = sender ? message.from : message.to;
  if (options_.trace) fmt::print("{:8d} trap for member {}\n", now_ / kMs, member);
  if (trap_.does == Trap::Does::kCrashSender || trap_.does == Trap::Does::kCrashReceiver) {
    ++counts_.crashes;
    machines_[member].crashed = true;
    return;
  }
  ++counts_.cuts;
  for (unsigned i = 0; i < hosts_; ++i) heard_from_[i] &= i == member ? bit(member) : ~bit(member);
}

bool World::runs(Member member) const {
  const Machine& machine = machines_[member];
  if (machine.crashed) return false;
  if (planted(QuorumError::kFenceIgnored)) return true;
  if (machine.quorum.fenced()) return false;
  const Time more = planted(QuorumError::kLeaseTooLong) ? 1500 : 0;
  return machine.lease_end != 0 && clock(machine) < machine.lease_end + more;
}

void World::check(Member stepped) {
  const Machine& machine = machines_[stepped];
  const Epoch epoch = machine.quorum.epoch();
  if (epoch != machines_[stepped].epoch) {
    machines_[stepped].epoch = epoch;
    const std::pair own{machine.quorum.members(), machine.quorum.home()};
    const auto [known, fresh] = epochs_.emplace(epoch, own);
    if (known->second != own)
      fail(fmt::format("epoch {} has members {:x} and home {} for one, {:x} and {} for member {}",
                       epoch, known->second.first, known->second.second, own.first, own.second,
                       stepped));
    for (unsigned i = 0; i < hosts_; ++i) {
      if ((machine.quorum.members() >> i & 1) != 0) continue;
      machines_[i].absent = std::max(machines_[i].absent, epoch);
      if (machines_[i].absent > machines_[i].epoch && runs(static_cast<Member>(i)))
        fail(fmt::format("member {} runs although epoch {} of member {} is without it", i, epoch,
                         stepped));
    }
  }
  // The daemons hand over their part when the home's own machine says so.
  if (stepped == home_ && epoch > home_epoch_) {
    home_ = machine.quorum.home();
    home_epoch_ = epoch;
  }
  if (machine.absent > epoch && runs(stepped))
    fail(fmt::format("member {} runs although others have gone on without it", stepped));
}

void World::check_end() {
  Members running = 0, waiting = 0;
  for (unsigned i = 0; i < hosts_; ++i) {
    const auto member = static_cast<Member>(i);
    if (machines_[i].crashed || machines_[i].quorum.fenced()) continue;
    // Nobody has taken it in: the home is lost, or has given it up.
    const bool taken = runs(home_) && (home().quorum.members() & bit(member)) != 0;
    if (machines_[i].quorum.outside() && !taken) continue;
    (runs(member) ? running : waiting) |= bit(member);
  }
  if (waiting != 0)
    return fail(fmt::format("members {:x} neither run nor are fenced at the end", waiting));
  for (unsigned i = 0; i < hosts_; ++i) {
    if ((running >> i & 1) == 0) continue;
    const Quorum& quorum = machines_[i].quorum;
    if (quorum.members() != running)
      return fail(fmt::format("member {} runs in epoch {} with {:x}, but running are {:x}", i,
                              quorum.epoch(), quorum.members(), running));
  }
  if (runs(home_) && !home().quorum.settled())
    return fail("the home's members are not as it was asked for");
  if (!simple_) return;
  const Members rest = epochs_[1].first & ~simple_lost_;
  // A calm that cuts the survivors makes it another story.
  if (faults_.back().side != 0) return;
  if (running != rest)
    fail(fmt::format("{:x} are left of a simple crash, but running are {:x}", rest, running));
}

}  // namespace

const char* text_of(QuorumError error) {
  switch (error) {
    case QuorumError::kNone: return "none";
    case QuorumError::kLeaseTooLong: return "lease-too-long";
    case QuorumError::kGrantTooShort: return "grant-too-short";
    case QuorumError::kEchoForged: return "echo-forged";
    case QuorumError::kTwoHomes: return "two-homes";
    case QuorumError::kPromiseForgets: return "promise-forgets";
    case QuorumError::kMemberForgets: return "member-forgets";
    case QuorumError::kClockRuns: return "clock-runs";
    case QuorumError::kFenceIgnored: return "fence-ignored";
    case QuorumError::kAcceptsLost: return "accepts-lost";
    case QuorumError::kEndsLater: return "ends-later";
    case QuorumError::kJoinsUnasked: return "joins-unasked";
    case QuorumError::kJoinsAnew: return "joins-anew";
    case QuorumError::kHomeUntold: return "home-untold";
    case QuorumError::kCount: break;
  }
  return "";
}

void QuorumCounts::add(const QuorumCounts& other) {
  schedules += other.schedules;
  events += other.events;
  epochs += other.epochs;
  crashes += other.crashes;
  cuts += other.cuts;
  slow += other.slow;
  fenced += other.fenced;
  holds += other.holds;
  resumed += other.resumed;
  lost_homes += other.lost_homes;
  joins += other.joins;
  leaves += other.leaves;
  moves += other.moves;
  slowest_ms = std::max(slowest_ms, other.slowest_ms);
}

std::string run_quorum(const QuorumOptions& options, QuorumCounts& counts) {
  return World(options, counts).run();
}

}  // namespace xenspan::sim
