#include "tests/sim/system.h"

#include <algorithm>

namespace xenspan::dsm::sim {

using ivy::FaultStart;
using ivy::Kind;
using ivy::Message;
using ivy::Payload;
using ivy::Step;
using ivy::Verdict;

void System::reset(const Shape& shape) {
  const bool same_hosts = !orders_.empty() && shape.hosts == shape_.hosts &&
                          shape.pages == shape_.pages && shape.home == shape_.home &&
                          shape.managers == shape_.managers;
  const bool has_members = shape_.elastic || shape.elastic;
  shape_ = shape;
  if (!same_hosts) orders_.clear();
  places_.resize(shape.hosts);
  work_.resize(shape.hosts);
  for (unsigned host = 0; host < shape.hosts; ++host) {
    for (unsigned page = 0; page < shape.pages; ++page) {
      places_[host][page] = Place{};
      work_[host][page].clear();
    }
  }
  std::fill(std::begin(current_), std::end(current_), 0);
  vcpus_.assign(shape.vcpus(), Vcpu{.ops_left = static_cast<std::uint8_t>(shape.ops)});
  if (has_members) reset_members();
  for (unsigned i = 0; shape.idle && i < shape.vcpus_per_host; ++i)
    vcpus_[shape.victim * shape.vcpus_per_host + i] = Vcpu{};
  clear_run();
}

// What a state in bytes does not hold, or holds as a list.
void System::clear_run() {
  dead_ = kNobody;
  rebuild_ = {};
  in_flight_.clear();
  history_.clear();
  last_value_ = 0;
  mutated_ = false;
  violation_ = nullptr;
}

// ---- which events can happen

bool System::right_suffices(HostId host, Op op, unsigned page) const {
  if (op == Op::kDiscard) return false;
  return places_[host][page].mapped >= (op == Op::kRead ? Right::kShared : Right::kExclusive);
}

bool System::can_attempt(unsigned vcpu, Op op, unsigned page) const {
  return right_suffices(host_of(vcpu), op, page) || !locked(host_of(vcpu), page);
}

void System::list_events(std::vector<Event>& events) const {
  if (rebuild_.stopped) return;
  const auto add = [&](Event::Kind kind, std::size_t a, unsigned b = 0, unsigned c = 0) {
    events.push_back({kind, static_cast<std::uint16_t>(a), static_cast<std::uint8_t>(b),
                      static_cast<std::uint8_t>(c)});
  };
  for (unsigned v = 0; v < shape_.vcpus(); ++v) {
    const Vcpu& vcpu = vcpus_[v];
    if (vcpu.mode == Mode::kReady && can_attempt(v, vcpu.op, vcpu.page)) {
      add(Event::Kind::kRetry, v);
    }
    if (vcpu.mode != Mode::kIdle || vcpu.ops_left == 0 || !present(host_of(v))) continue;
    for (unsigned op = 0; op < shape_.kinds; ++op) {
      for (unsigned page = 0; page < shape_.pages; ++page) {
        if (can_attempt(v, static_cast<Op>(op), page)) add(Event::Kind::kStart, v, op, page);
      }
    }
  }
  for (std::size_t i = 0; i < in_flight_.size(); ++i) {
    const Message& message = in_flight_[i].message;
    if (message.from == dead_) add(Event::Kind::kLose, i);
    if (is_about_slot(message.kind)) {
      add(Event::Kind::kDeliver, i);
      continue;
    }
    if (locked(message.to, message.gfn) || early(message)) continue;
    add(Event::Kind::kDeliver, i);
    if (shape_.repeats && can_run({Event::Kind::kRepeat, static_cast<std::uint16_t>(i)}))
      add(Event::Kind::kRepeat, i);
  }
  for (unsigned host = 0; host < shape_.hosts && shape_.crash && !crashed(); ++host) {
    if (present(host) && (!shape_.survive || host == shape_.victim)) add(Event::Kind::kCrash, host);
  }
  if (shape_.survive) list_rebuild_events(events);
  if (shape_.elastic) list_member_events(events);
  for (unsigned host = 0; host < shape_.hosts && shape_.fine; ++host) {
    for (unsigned page = 0; page < shape_.pages; ++page) {
      if (locked(host, page)) add(Event::Kind::kStep, host, page);
    }
  }
}

// Whether the host it is for would keep this message for later.
bool System::early(const Message& message) const {
  const bool asks = message.kind == Kind::kReadRequest || message.kind == Kind::kWriteRequest ||
                    message.kind == Kind::kRelease;
  if (message.kind != Kind::kReadForward && message.kind != Kind::kWriteForward &&
      message.kind != Kind::kInvalidate && !(asks && shape_.elastic)) {
    return false;
  }
  if (asks && shape_.mutation == Mutation::kServedBeforeRows) return false;
  const auto page = static_cast<unsigned>(message.gfn);
  SimPage copy = places_[message.to][page].state;
  ivy::Steps unused;
  return copy.with(shape_.wide, [&](auto& state) {
    return on_message(state, view(message.to, page), message, unused);
  }) == Verdict::kEarly;
}

bool System::can_run(const Event& event) const {
  if (event.kind == Event::Kind::kUnmap) return !locked(event.a, event.b);
  if (event.kind != Event::Kind::kRepeat) return false;
  // Every transport delivers once; for grants, which bring contents, the machine sees to it itself.
  const InFlight& flight = in_flight_[event.a];
  return !flight.repeated && flight.message.kind == Kind::kGrant;
}

int System::goes_to(const Event& event) const {
  if (event.kind == Event::Kind::kStep) return event.a;
  if (event.kind == Event::Kind::kHandRow || event.kind == Event::Kind::kLearn) return event.a;
  return event.kind == Event::Kind::kDeliver ? in_flight_[event.a].message.to : -1;
}

bool System::finished() const {
  return std::all_of(vcpus_.begin(), vcpus_.begin() + shape_.vcpus(), [](const Vcpu& vcpu) {
    return vcpu.mode == Mode::kIdle && vcpu.ops_left == 0;
  });
}

bool System::page_is_quiet(unsigned page) const {
  for (const InFlight& flight : in_flight_) {
    if (flight.message.gfn == page && !is_about_slot(flight.message.kind)) return false;
  }
  if (shape_.elastic && !slot_is_quiet(slot_of(page))) return false;
  for (unsigned host = 0; host < shape_.hosts; ++host) {
    if (locked(host, page)) return false;
  }
  return true;
}

bool System::nothing_in_flight() const {
  for (unsigned page = 0; page < shape_.pages; ++page) {
    if (!page_is_quiet(page)) return false;
  }
  return true;
}

// ---- events

void System::run(const Event& event) {
  unsigned page = 0;
  switch (event.kind) {
    case Event::Kind::kStart:
      page = event.c;
      start(event.a, static_cast<Op>(event.b), event.c);
      break;
    case Event::Kind::kRetry:
      page = vcpus_[event.a].page;
      attempt(event.a);
      break;
    case Event::Kind::kDeliver:
    case Event::Kind::kRepeat:
      page = static_cast<unsigned>(in_flight_[event.a].message.gfn);
      deliver(event.a, event.kind == Event::Kind::kRepeat);
      break;
    case Event::Kind::kStep:
      page = event.b;
      run_step(static_cast<HostId>(event.a), event.b);
      break;
    case Event::Kind::kUnmap:
      page = event.b;
      places_[event.a][event.b].mapped = Right::kInvalid;
      break;
    case Event::Kind::kCrash: crash(event.a); break;
    case Event::Kind::kRebuild: run_rebuild(event.a); break;
    case Event::Kind::kLose:
      in_flight_[event.a] = in_flight_.back();
      in_flight_.pop_back();
      break;
    default:
      run_member_event(event);
      page = event.b;
      break;
  }
  if (!shape_.blind) check_page(page);
}

// The others go on until they hear of it: nothing they do until then may be wrong.
void System::crash(HostId host) {
  if (shape_.survive) note_involved(host);
  dead_ = host;
  for (unsigned page = 0; page < shape_.pages; ++page) {
    places_[host][page] = Place{};
    work_[host][page].clear();
  }
  for (unsigned i = 0; i < shape_.vcpus_per_host; ++i) {
    vcpus_[host * shape_.vcpus_per_host + i] = Vcpu{};
  }
  std::erase_if(in_flight_, [&](const InFlight& flight) { return flight.message.to == host; });
}

void System::start(unsigned v, Op op, std::uint8_t page) {
  Vcpu& vcpu = vcpus_[v];
  vcpu.op = op;
  vcpu.page = page;
  vcpu.mode = Mode::kReady;
  attempt(v);
}

// Unique among a host's requests, and the same for every way to get to a state.
std::uint32_t System::txn_of(unsigned v) const {
  return (v + 1) * kTxnsOfVcpu + vcpus_[v].ops_left * 8u + vcpus_[v].faults;
}

void System::attempt(unsigned v) {
  Vcpu& vcpu = vcpus_[v];
  const HostId host = host_of(v);
  if (right_suffices(host, vcpu.op, vcpu.page)) return access(v);
  ++vcpu.faults;
  steps_.clear();
  const bool discard = vcpu.op == Op::kDiscard;
  const FaultStart start = places_[host][vcpu.page].state.with(shape_.wide, [&](auto& state) {
    return on_fault(state, full_view(host, vcpu.page), vcpu.page,
                    vcpu.op == Op::kRead ? Right::kShared : Right::kExclusive, discard,
                    kServiceLane, txn_of(v), steps_);
  });
  if (start != FaultStart::kStarted) --vcpu.faults;
  vcpu.mode = start == FaultStart::kStarted   ? Mode::kWaiting
              : start == FaultStart::kPending ? Mode::kBlocked
                                              : Mode::kReady;
  const unsigned page = vcpu.page;
  mutate(host, page, nullptr);
  take_over_steps(host, page);
}

void System::access(unsigned v) {
  Vcpu& vcpu = vcpus_[v];
  Value& frame = places_[host_of(v)][vcpu.page].frame;
  if (vcpu.op == Op::kWrite) current_[vcpu.page] = frame = ++last_value_;
  history_.push_back({static_cast<std::uint16_t>(v), vcpu.page, vcpu.op == Op::kWrite, frame});
  end_op(vcpu);
}

void System::end_op(Vcpu& vcpu) {
  vcpu = Vcpu{.ops_left = static_cast<std::uint8_t>(vcpu.ops_left - 1)};
}

void System::place_contents(const InFlight& arrived, Place& place) {
  const Message& message = arrived.message;
  if (message.kind != Kind::kGrant || message.payload == Payload::kNone) return;
  const auto page = static_cast<unsigned>(message.gfn);
  const bool expected = place.state.with(shape_.wide, [&](const auto& state) {
    return expects_contents(state, view(message.to, page), message);
  });
  if (!expected) {
    if (strict() && !arrived.repeated) fail("the contents of a correct grant were refused");
    return;
  }
  if (strict() && arrived.repeated) fail("the contents of a repeated grant were let into a frame");
  place.frame = message.payload == Payload::kZero ? 0 : arrived.contents;
}

void System::deliver(unsigned index, bool repeat) {
  const InFlight arrived = in_flight_[index];
  if (repeat) {
    in_flight_[index].repeated = true;
  } else {
    in_flight_[index] = in_flight_.back();
    in_flight_.pop_back();
  }
  const Message& message = arrived.message;
  if (is_about_slot(message.kind)) return deliver_about_slot(message);
  const auto page = static_cast<unsigned>(message.gfn);
  if (crashed() && shape_.survive && message.kind == Kind::kRow && deliver_after_loss(message))
    return;
  if (message.kind == Kind::kOffer) return adopt(message.to, page);
  if (message.kind == Kind::kRow && !expect_row(message)) return;
  Place& place = places_[message.to][page];
  place_contents(arrived, place);
  steps_.clear();
  ivy::View now = full_view(message.to, page);
  if (shape_.mutation == Mutation::kServedBeforeRows && message.kind != Kind::kRow) {
    mutated_ = mutated_ || now.arriving;
    now.arriving = false;
  }
  const Verdict verdict = place.state.with(
      shape_.wide, [&](auto& state) { return on_message(state, now, message, steps_); });
  if (message.kind == Kind::kReleased && !arrived.repeated) --members_.unanswered;
  if (message.kind == Kind::kReleased && message.right == Right::kShared)
    members_.kept = static_cast<std::uint8_t>(members_.kept | 1u << page);
  if (strict()) {
    if (verdict == Verdict::kIllegal) fail("a correct message was called illegal");
    // The answer to a release comes late when the copy was taken away first.
    const bool late = message.kind == Kind::kReleased && verdict == Verdict::kDuplicate;
    if (!late && arrived.repeated != (verdict == Verdict::kDuplicate)) {
      fail(arrived.repeated ? "a repeated message was accepted" : "a message was called a repeat");
    }
    if (verdict != Verdict::kAccepted && steps_.size() != 0) fail("steps of a refused message");
  }
  mutate(message.to, page, &message);
  take_over_steps(message.to, page);
  if (message.kind == Kind::kRow) count_row(message);
}

// ---- deliberate errors

void System::mutate(HostId host, unsigned page, const Message* cause) {
  if (!may_mutate()) return;
  bool changed = alter_steps(shape_.mutation, cause, steps_);
  Place& place = places_[host][page];
  changed = alter_page(shape_.mutation, cause, shape_.wide, place.state, place.row) || changed;
  mutated_ = mutated_ || changed;
}

// ---- steps

void System::take_over_steps(HostId host, unsigned page) {
  Work& work = work_[host][page];
  work.clear();
  work.steps.assign(steps_.begin(), steps_.end());
  while (!shape_.fine && !work.empty()) run_step(host, page);
}

void System::run_step(HostId host, unsigned page) {
  Work& work = work_[host][page];
  const Step step = work.steps[work.at++];
  Place& place = places_[host][page];
  switch (step.kind) {
    case Step::Kind::kWithdraw: place.mapped = Right::kInvalid; break;
    case Step::Kind::kProtect: place.mapped = std::min(place.mapped, Right::kShared); break;
    case Step::Kind::kDropFrame: drop_frame(host, page, step.message); break;
    case Step::Kind::kGrantShared:
    case Step::Kind::kGrantExclusive: grant(host, page, step); break;
    case Step::Kind::kSend: send(host, step.message); break;
    case Step::Kind::kComplete: complete(host, page, step.message.txn); break;
  }
}

void System::send(HostId host, Message message) {
  if (message.gfn >= shape_.pages || message.to >= shape_.hosts || message.from != host) {
    return fail("a message to nowhere or in another host's name");
  }
  if (may_mutate() && loses(shape_.mutation, message)) {
    mutated_ = true;
    return;
  }
  if (message.to == dead_) return;
  if (!present(message.to)) {
    if (!may_be_late(message.kind)) fail("a host that is not there is written to");
    return;
  }
  const Value contents = places_[host][message.gfn].frame;
  // As the engine does: a page of zeros does not travel.
  if (message.payload == Payload::kPage && contents == 0) message.payload = Payload::kZero;
  in_flight_.push_back({message, message.payload == Payload::kPage ? contents : 0});
}

System::Vcpu* System::waiting_vcpu(HostId host, unsigned page, std::uint32_t txn) {
  for (unsigned i = 0; i < shape_.vcpus_per_host; ++i) {
    const unsigned v = host * shape_.vcpus_per_host + i;
    if (vcpus_[v].mode == Mode::kWaiting && vcpus_[v].page == page && txn_of(v) == txn) {
      return &vcpus_[v];
    }
  }
  return nullptr;
}

// A discard is a write of zero: it takes place when the guest of its own host can first see the
// zeros.
void System::record_discard(Vcpu& vcpu) {
  vcpu.dropped = true;
  current_[vcpu.page] = 0;
  history_.push_back({static_cast<std::uint16_t>(index_of(vcpu)), vcpu.page, true, 0});
}

void System::drop_frame(HostId host, unsigned page, const Message& about) {
  Place& place = places_[host][page];
  place.frame = 0;
  if (about.requester != host || place.mapped == Right::kInvalid) return;
  Vcpu* vcpu = waiting_vcpu(host, page, about.txn);
  if (vcpu != nullptr && vcpu->op == Op::kDiscard) record_discard(*vcpu);
}

void System::grant(HostId host, unsigned page, const Step& step) {
  const bool exclusive = step.kind == Step::Kind::kGrantExclusive;
  places_[host][page].mapped = exclusive ? Right::kExclusive : Right::kShared;
  Vcpu* vcpu = waiting_vcpu(host, page, step.message.txn);
  if (vcpu != nullptr && vcpu->op == Op::kDiscard && !vcpu->dropped) record_discard(*vcpu);
}

void System::complete(HostId host, unsigned page, std::uint32_t txn) {
  Vcpu* vcpu = waiting_vcpu(host, page, txn);
  const bool nobodys = shape_.elastic && txn < kTxnsOfVcpu;  // an offer taken, or a release
  if (vcpu == nullptr && !nobodys) return fail("a request was completed that nobody waits for");
  for (unsigned i = 0; i < shape_.vcpus_per_host; ++i) {
    Vcpu& other = vcpus_[host * shape_.vcpus_per_host + i];
    if (other.mode == Mode::kBlocked && other.page == page) other.mode = Mode::kReady;
  }
  if (nobodys) return;
  if (vcpu->op == Op::kDiscard) return end_op(*vcpu);
  if (!right_suffices(host, vcpu->op, page)) return fail("completed without the right");
  vcpu->mode = Mode::kReady;
  if (vcpu->faults > shape_.refaults) access(index_of(*vcpu));
}

}  // namespace xenspan::dsm::sim
