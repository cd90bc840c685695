#include "dsm-rdma/prefetch.h"

#include <algorithm>
#include <mutex>
#include <utility>

namespace xenspan::dsm {
namespace {

// A page and a right in one word that is never 0: gfns have 32 bits at most (PageTable::kMaxPages).
// Above it a link keeps how often it was seen, and how often it led to something that was not used.
constexpr unsigned kSeenShift = 48, kWrongShift = 56;
constexpr std::uint64_t kKeyMask = (std::uint64_t{1} << kSeenShift) - 1;
constexpr std::uint64_t kNoLink = 1;  // no page has this key
// In place of a link's key: a burst, or a gate, of the thread in the slot with the number in the
// other bits.
constexpr std::uint64_t kOfBurst = std::uint64_t{1} << 63, kOfGate = std::uint64_t{1} << 62;

std::uint64_t key_of(Ask ask) {
  return (ask.gfn + 1) << 1 | (ask.right == Right::kExclusive ? 1 : 0);
}
Ask ask_of(std::uint64_t key) {
  return {(key >> 1) - 1, (key & 1) != 0 ? Right::kExclusive : Right::kShared};
}

// Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4).
std::size_t spread(std::uint64_t value, std::size_t places) {
  return (value * 0x9e3779b97f4a7c15 >> 32) % places;
}

std::int64_t between(Gfn from, Gfn to) {
  return static_cast<std::int64_t>(to) - static_cast<std::int64_t>(from);
}
Gfn ahead(Gfn gfn, std::int64_t by) {
  return static_cast<Gfn>(static_cast<std::int64_t>(gfn) + by);
}

}  // namespace

// The early requests of one fault.
class Predictor::Run {
 public:
  Run(Predictor& predictor, Walks& walks, std::uint64_t now_ns, unsigned sample_at, StartFn start,
      void* context)
      : predictor_(predictor),
        walks_(walks),
        now_ns_(now_ns),
        sample_at_(sample_at),
        start_(start),
        context_(context) {}

  Start ask(Ask ask, std::uint64_t from) {
    if (predictor_.contended(ask.gfn, now_ns_)) return Start::kRefused;
    if (started_ == predictor_.most_) return Start::kNoRoom;
    const bool sampled = started_ == sample_at_;
    const Start result = start_(context_, ask, sampled);
    if (result == Start::kHeld || result == Start::kStarted) walks_.on_early(ask);
    if (result == Start::kHeld) last_ = ask;
    if (result != Start::kStarted) return result;
    if (sampled) predictor_.put_sample(ask.gfn, from);
    ++started_;
    last_ = ask;
    return result;
  }
  unsigned started() const { return started_; }
  // Where there is a sample, it is one of the next so many.
  void sample_among(unsigned next) {
    if (sample_at_ != kMostRun) sample_at_ %= next;
  }
  void sample_none() { sample_at_ = kMostRun; }
  Ask last() const { return last_; }

 private:
  Predictor& predictor_;
  Walks& walks_;
  const std::uint64_t now_ns_;
  unsigned sample_at_;  // which of them; kMostRun: none
  const StartFn start_;
  void* const context_;
  unsigned started_ = 0;
  Ask last_;
};

Predictor::Slot& Predictor::slot_of(std::uint64_t thread) noexcept {
  return slots_[spread(thread >> 6, kSlots)];
}

unsigned Predictor::on_fault(std::uint64_t thread, Ask fault, std::uint64_t site,
                             std::uint64_t now_ns, StartFn start, void* context) noexcept {
  if (!on()) return 0;
  Slot& slot = slot_of(thread);
  if (!slot.lock.try_lock()) return 0;
  const std::lock_guard guard(slot.lock, std::adopt_lock);
  const std::uint8_t vain = slot.in_vain.load(std::memory_order_relaxed);
  const unsigned started = guess(slot, thread, fault, site, now_ns, start, context);
  slot.in_vain.store(started > 0 ? 0 : std::min<std::uint8_t>(vain + 1, kInVain),
                     std::memory_order_relaxed);
  return started;
}

unsigned Predictor::guess(Slot& slot, std::uint64_t thread, Ask fault, std::uint64_t site,
                          std::uint64_t now_ns, StartFn start, void* context) noexcept {
  slot.apart = contended(fault.gfn, now_ns);
  if (slot.thread != thread) {
    if (slot.apart) return 0;
    slot.thread = thread;
    slot.last = slot.fault = {};
    slot.streams = {};
    slot.bursts = {};
    slot.gates = {};
    slot.walks = {};
  }
  slot.walk = {};
  const bool sampled = slot.runs % kFewBetween == 0;
  Run run(*this, slot.walks, now_ns, sampled ? slot.runs / kFewBetween * 5 % 7 : kMostRun, start,
          context);
  const std::uint64_t gate = Gates::key_of(fault.gfn, site);
  if (slot.gates.knows(gate)) slot.apart = true;
  if (slot.apart) return open_gate(slot, gate, now_ns, run);
  const bool near = slot.last_ns != 0 && now_ns < slot.last_ns + kNearNs;
  const bool lost = near && slot.fault == fault;  // before it could be used: nothing beside it now
  // Likewise what came with a gate.
  const bool too_soon =
      std::exchange(slot.through_gate, false) && near && slot.bursts.asked(fault.gfn);
  if (too_soon) slot.gates.on_too_soon();
  slot.gates.on_fault(fault, now_ns);
  if (near && !lost && slot.last.right != Right::kInvalid) remember(slot.last, fault);
  slot.fault = slot.last = fault;
  slot.last_ns = now_ns;
  if (slot.bursts.on_asked(fault, !near || too_soon)) leave_alone(fault.gfn, now_ns);
  if (lost) return 0;
  slot.walks.on_touched(fault);
  walk(slot, fault, run);
  if (run.started() == 0) burst(slot, fault, run);
  if (run.started() == 0) follow(fault, run);
  if (run.started() == 0) stream(slot, fault, run);
  if (run.started() == 0) return 0;
  ++slot.runs;
  slot.last = run.last();
  return run.started();
}

bool Predictor::likely(std::uint64_t thread) noexcept {
  return on() && slot_of(thread).in_vain.load(std::memory_order_relaxed) < kInVain;
}

bool Predictor::to_be_written(std::uint64_t thread, Gfn gfn) noexcept {
  if (!on()) return false;
  Slot& slot = slot_of(thread);
  if (!slot.lock.try_lock()) return false;
  const std::lock_guard guard(slot.lock, std::adopt_lock);
  return slot.thread == thread && slot.bursts.right(gfn) == Right::kExclusive;
}

void Predictor::on_served(std::uint64_t thread, std::uint64_t now_ns) noexcept {
  if (!on()) return;
  Slot& slot = slot_of(thread);
  if (!slot.lock.try_lock()) return;
  if (slot.thread == thread) {
    if (slot.apart) {
      slot.gates.on_served(now_ns);
    } else {
      slot.last_ns = now_ns;
    }
  }
  slot.lock.unlock();
}

// What the thread wants behind a contended page, together with it: a burst of its own.
unsigned Predictor::open_gate(Slot& slot, std::uint64_t gate, std::uint64_t now_ns,
                              Run& run) noexcept {
  Ask behind = slot.gates.on_gate(gate);
  if (behind.right == Right::kInvalid) return 0;
  behind.right = std::max(behind.right, slot.bursts.right(behind.gfn));
  run.sample_among(slot.bursts.size(behind.gfn) + 1);
  const auto bring = [&](Ask each) {
    return ask(slot, each, kOfGate, run.started() == 0, run) != Start::kNoRoom;
  };
  if (bring(behind)) slot.bursts.others(behind.gfn, bring);
  if (run.started() == 0) return 0;
  slot.gates.on_opened();
  slot.through_gate = true;
  slot.last = slot.fault = {};
  slot.last_ns = now_ns;
  ++slot.runs;
  return run.started();
}

// What is left of the walk that this fault is part of: what does not go with the fault is asked for
// by walk_on().
void Predictor::walk(Slot& slot, Ask fault, Run& run) noexcept {
  const Gfn end = slot.walks.end(fault);
  if (end == fault.gfn + 1) return;
  Gfn gfn = fault.gfn + 1;
  run.sample_none();
  for (; gfn < end - 1; ++gfn) {
    if (run.ask({gfn, fault.right}, kNoLink) == Start::kNoRoom) break;
  }
  slot.walk = {gfn, fault.right};
  slot.walk_end = end;
  slot.walks.on_asked(fault);
}

// The last page of a walk is watched.
unsigned Predictor::walk_on(Slot& slot, StartFn start, void* context) noexcept {
  unsigned started = 0;
  Ask ask = std::exchange(slot.walk, {});
  for (; ask.gfn < slot.walk_end; ++ask.gfn) {
    const bool last = ask.gfn + 1 == slot.walk_end;
    const Start result = start(context, ask, last);
    if (result == Start::kNoRoom) break;
    if (result != Start::kStarted) continue;
    ++started;
    if (last) put_sample(ask.gfn, kOfWalk | static_cast<std::uint64_t>(&slot - slots_.data()));
  }
  return started;
}

// The other pages of the burst that this fault is part of.
void Predictor::burst(Slot& slot, Ask fault, Run& run) noexcept {
  const unsigned size = slot.bursts.size(fault.gfn);
  if (size == 0) return;
  run.sample_among(size);
  slot.bursts.others(fault.gfn, [&](Ask other) {
    return ask(slot, other, kOfBurst, false, run) != Start::kNoRoom;
  });
}

// A page of a burst, and `first` of a new one.
Predictor::Start Predictor::ask(Slot& slot, Ask ask, std::uint64_t reason, bool first,
                                Run& run) noexcept {
  const Start result = run.ask(ask, reason | static_cast<std::uint64_t>(&slot - slots_.data()));
  if (result == Start::kStarted) slot.bursts.on_asked(ask, first);
  return result;
}

// Along the links from this fault on, past what is refused or here already.
void Predictor::follow(Ask fault, Run& run) noexcept {
  const std::uint64_t first = key_of(fault);
  std::uint64_t key = first, next;
  for (unsigned step = 0; step < kSteps && successor(key, next) && next != first; ++step) {
    if (run.ask(ask_of(next), key) == Start::kNoRoom) return;
    key = next;
  }
}

// The fault continues a stream, or may be the second one of a new stream, or the first.
void Predictor::stream(Slot& slot, Ask fault, Run& run) noexcept {
  for (Stream& each : slot.streams) {
    if (each.right != fault.right || each.stride == 0) continue;
    if (ahead(each.last, each.stride) != fault.gfn) continue;
    if (each.window > 0) slot.trust = std::min(slot.trust + 2, kMostTrust);
    each.window = each.window == 0 ? 1 : std::min(each.window * 2, most_);
    each.marked = each.window == most_ ? 1 : 0;
    each.markers[0] = fault.gfn;
    return extend(each, fault, run);
  }
  for (Stream& each : slot.streams) {
    if (each.right != fault.right) continue;
    const std::int64_t step = between(each.last, fault.gfn);
    if (each.window > 0 && fault.gfn >= std::min(each.run_first, each.last) &&
        fault.gfn <= std::max(each.run_first, each.last)) {
      each.marked = each.ahead = 0;
      each.window /= 2;  // one of the run was lost before it was used, or never came
      return;
    }
    if (step == 0 || step > kReach || step < -kReach) continue;
    each.stride = step;
    each.window = each.marked = each.ahead = 0;
    each.last = each.run_first = fault.gfn;
    if ((step != 1 && step != -1) || slot.trust == 0) return;
    --slot.trust;  // a neighbour: worth a guess, as long as such guesses turn out right
    each.window = 1;
    return extend(each, fault, run);
  }
  Stream& fresh = slot.streams[slot.next_stream++ % kStreams];
  fresh = {};
  fresh.last = fresh.run_first = fault.gfn;
  fresh.right = fault.right;
}

// Asks for the next run. It ends where a page is refused, so that the next fault is just behind it.
void Predictor::extend(Stream& stream, Ask fault, Run& run) noexcept {
  stream.last = stream.run_first = fault.gfn;
  for (unsigned i = 0; i < kSteps && run.started() < stream.window; ++i) {
    const Gfn gfn = ahead(stream.last, stream.stride);
    const Start result = run.ask({gfn, fault.right}, kNoLink);
    if (result == Start::kRefused || result == Start::kNoRoom) break;
    if (i == 0) stream.run_first = gfn;
    stream.last = gfn;
  }
}

unsigned Predictor::on_marker(std::uint64_t thread, Gfn gfn, StartFn start,
                              void* context) noexcept {
  if (!on()) return 0;
  Slot& slot = slot_of(thread);
  if (!slot.lock.try_lock()) return 0;
  const std::lock_guard guard(slot.lock, std::adopt_lock);
  if (slot.thread != thread) return 0;
  if (slot.walk.right != Right::kInvalid && gfn == slot.fault.gfn)
    return walk_on(slot, start, context);
  for (Stream& each : slot.streams) {
    const auto end = each.markers.begin() + each.marked;
    const auto found = std::find(each.markers.begin(), end, gfn);
    if (found == end) continue;
    if (slot.fault.gfn != gfn) slot.walks.on_touched({gfn, each.right});
    std::move(found + 1, end, each.markers.begin());
    each.marked -= static_cast<unsigned>(found + 1 - each.markers.begin());
    each.times = std::min(each.ahead == 0 ? kAheadRuns : each.times * 2, most_times_);
    each.ahead = std::min(each.ahead + 1, kMostAhead);
    unsigned started = 0;
    while (each.marked < each.ahead && run_ahead(each, slot.walks, start, context, started)) {
    }
    return started;
  }
  return 0;
}

// One run more. false: it found an end.
bool Predictor::run_ahead(Stream& stream, Walks& walks, StartFn start, void* context,
                          unsigned& started) noexcept {
  bool marked = false;
  unsigned run = 0;
  // Some are held already; of pages that all are, no more than twice as many are looked at.
  const unsigned length = stream.times * (most_ + 1);
  for (unsigned i = 0; i < 2 * length && run < length; ++i) {
    const Gfn gfn = ahead(stream.last, stream.stride);
    const Start result = start(context, {gfn, stream.right}, !marked);
    if (result == Start::kRefused || result == Start::kNoRoom) return false;
    stream.last = gfn;
    walks.on_early({gfn, stream.right});
    if (result != Start::kStarted) continue;
    ++run;
    ++started;
    if (!std::exchange(marked, true)) stream.markers[stream.marked++] = gfn;
  }
  return marked;
}

void Predictor::remember(Ask from, Ask to) noexcept {
  const std::uint64_t key = key_of(from), next = key_of(to);
  Link& link = links_[spread(key, kLinks)];
  Knowledge known = knowledge(link);
  if (link.key.load(std::memory_order_relaxed) != key) {
    known = {next, 1, 0};
  } else if (known.next == next) {
    // One more than needed: a single other successor does not undo it, two do.
    known.seen = std::min(known.seen + 1, (kSure << known.wrong) + 1);
  } else if (known.seen > 1) {
    --known.seen;
  } else {
    known = {next, 1, known.wrong};
  }
  link.key.store(key, std::memory_order_relaxed);
  keep(link, known);
}

// What this link leads to was used; or not, and then it has to be seen more often from now on.
void Predictor::judge(std::uint64_t key, Gfn gfn, bool used) noexcept {
  if ((key & (kOfBurst | kOfGate | kOfWalk)) != 0) {
    Slot& slot = slots_[key & ~(kOfBurst | kOfGate | kOfWalk)];
    const bool of_walk = (key & kOfWalk) != 0;
    if ((used && !of_walk) || !slot.lock.try_lock()) return;
    if (of_walk) {
      slot.walks.on_judged(gfn, used);
    } else if ((key & kOfGate) != 0) {
      slot.gates.on_too_soon();
    } else {
      slot.bursts.on_unused(gfn);
    }
    slot.lock.unlock();
    return;
  }
  Link& link = links_[spread(key, kLinks)];
  if (link.key.load(std::memory_order_relaxed) != key) return;
  Knowledge known = knowledge(link);
  if (used) {
    known.wrong = 0;
  } else {
    known.seen = 0;
    known.wrong = std::min(known.wrong + 1, kMostWrong);
  }
  keep(link, known);
}

Predictor::Knowledge Predictor::knowledge(const Link& link) noexcept {
  const std::uint64_t word = link.next.load(std::memory_order_relaxed);
  return {word & kKeyMask, static_cast<unsigned>(word >> kSeenShift & 0xff),
          static_cast<unsigned>(word >> kWrongShift)};
}
void Predictor::keep(Link& link, const Knowledge& known) noexcept {
  link.next.store(known.next | std::uint64_t{known.seen} << kSeenShift |
                      std::uint64_t{known.wrong} << kWrongShift,
                  std::memory_order_relaxed);
}

bool Predictor::successor(std::uint64_t key, std::uint64_t& next) const noexcept {
  const Link& link = links_[spread(key, kLinks)];
  if (link.key.load(std::memory_order_relaxed) != key) return false;
  const Knowledge known = knowledge(link);
  next = known.next;
  return known.seen >= kSure << known.wrong && next > kNoLink;
}

void Predictor::on_contention(Gfn gfn, std::uint64_t now_ns) noexcept {
  Contention& at = contentions_[spread(gfn, kContentions)];
  const bool known = at.gfn.load(std::memory_order_relaxed) == gfn;
  const bool again = known && now_ns < at.last_ns.load(std::memory_order_relaxed) + kTwiceNs;
  const std::uint64_t until = known ? at.until_ns.load(std::memory_order_relaxed) : 0;
  at.gfn.store(gfn, std::memory_order_relaxed);
  at.last_ns.store(now_ns, std::memory_order_relaxed);
  at.until_ns.store(again ? std::max(until, now_ns + kContendedNs) : until,
                    std::memory_order_relaxed);
}

void Predictor::leave_alone(Gfn gfn, std::uint64_t now_ns) noexcept {
  Contention& at = contentions_[spread(gfn, kContentions)];
  at.gfn.store(gfn, std::memory_order_relaxed);
  at.last_ns.store(now_ns, std::memory_order_relaxed);
  at.until_ns.store(now_ns + kFoughtForNs, std::memory_order_relaxed);
}

bool Predictor::contended(Gfn gfn, std::uint64_t now_ns) const noexcept {
  const Contention& at = contentions_[spread(gfn, kContentions)];
  return at.gfn.load(std::memory_order_relaxed) == gfn &&
         now_ns < at.until_ns.load(std::memory_order_relaxed);
}

void Predictor::put_sample(Gfn gfn, std::uint64_t from) noexcept {
  Sample& sample = samples_[spread(gfn, kSamples)];
  sample.from.store(from, std::memory_order_relaxed);
  sample.page.store(gfn + 1, std::memory_order_release);
}

// The key of the link that led to this sample, which is over; 0 when the page is none.
std::uint64_t Predictor::take_sample(Gfn gfn) noexcept {
  Sample& sample = samples_[spread(gfn, kSamples)];
  std::uint64_t page = gfn + 1;
  if (sample.page.load(std::memory_order_acquire) != page) return 0;
  const std::uint64_t from = sample.from.load(std::memory_order_relaxed);
  return sample.page.compare_exchange_strong(page, 0, std::memory_order_relaxed) ? from : 0;
}

}  // namespace xenspan::dsm
