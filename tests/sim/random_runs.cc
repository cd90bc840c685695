#include "tests/sim/random_runs.h"

#include <algorithm>
#include <thread>
#include <vector>

#include "dsm-rdma/scale/random.h"

namespace xenspan::dsm::sim {
namespace {

// Far above what any schedule needs: more means that nobody advances.
constexpr unsigned kMaxEvents = 200'000, kMaxCrowdEvents = 10'000'000;

using scale::Random;

// How this schedule's network and scheduler are inclined. Any message may overtake any other in all
// of them.
struct Temper {
  unsigned newest_first =
      0;  // of 8: how often the last listed event goes first (late messages overtake)
  unsigned oldest_first = 0;  // of 8: ... the first listed
  int slow_host = -1;         // what happens there is held back, messages and steps
  unsigned patience = 0;  // how often something else is tried before the slow host gets its turn
  bool unmaps = false, repeats = false;
  unsigned dies_after = 0;  // events
};

Shape draw_shape(Random& random, Mutation mutation) {
  Shape shape;
  const unsigned size = random.below(20);
  shape.hosts = size < 9 ? 2 : size < 15 ? 3 : size < 18 ? 4 : random.between(5, 8);
  shape.pages = random.one_in(2) ? 1 : random.between(1, kMaxSimPages);
  shape.vcpus_per_host = random.one_in(3) ? 2 : 1;
  shape.ops = random.between(2, shape.hosts <= 3 ? 6 : 4);
  shape.kinds = random.one_in(2) ? 3 : 2;
  shape.refaults = random.between(0, 2);
  shape.fine = random.one_in(2) || mutation != Mutation::kNone;
  shape.home = static_cast<HostId>(random.below(shape.hosts));
  for (HostId& manager : shape.managers) manager = static_cast<HostId>(random.below(shape.hosts));
  shape.mutation = mutation;
  shape.mutate_once = true;
  shape.wide = random.one_in(3);
  return shape;
}

// Many hosts and long runs: a write has many copies to withdraw.
Shape draw_crowd(Random& random) {
  Shape shape = draw_shape(random, Mutation::kNone);
  shape.hosts = random.between(9, shape.wide ? kMaxSimHosts : kMaxHosts);
  shape.vcpus_per_host = 1;
  shape.ops = random.between(2, 20);
  shape.home = static_cast<HostId>(random.below(shape.hosts));
  for (HostId& manager : shape.managers) manager = static_cast<HostId>(random.below(shape.hosts));
  return shape;
}

Shape draw_members(Random& random, Mutation mutation) {
  Shape shape = draw_shape(random, mutation);
  shape.wide = false;
  shape.elastic = true;
  shape.hosts = random.between(3, 5);
  shape.pages = random.between(1, 3);
  shape.ops = random.between(2, 4);
  shape.one_slot = random.one_in(2);
  shape.moves = random.between(0, 6);
  shape.home = static_cast<HostId>(random.below(shape.hosts));
  const auto another = [&](unsigned step) {
    return static_cast<HostId>((shape.home + step) % shape.hosts);
  };
  if (random.one_in(2)) shape.joiner = another(1);
  if (!random.one_in(3)) shape.leaver = another(2);
  shape.heir = random.one_in(2) || shape.hosts == 3 ? shape.home : another(3);
  if (random.one_in(4)) {
    shape.joiner = -1;
    shape.leaver = shape.home;
    shape.heir = another(1);
  }
  // Whoever joins manages nothing before.
  for (HostId& manager : shape.managers) manager = random.one_in(2) ? shape.home : another(2);
  return shape;
}

Shape draw_loss(Random& random, Mutation mutation) {
  Shape shape = draw_members(random, mutation);
  shape.joiner = shape.leaver = -1;
  shape.crash = shape.survive = true;
  shape.moves = random.one_in(2) ? 0 : random.between(1, 3);
  shape.home = 0;
  shape.victim = static_cast<HostId>(random.between(1, shape.hosts - 1));
  shape.idle = random.one_in(2);
  for (HostId& manager : shape.managers)
    manager = random.one_in(2) ? shape.victim : static_cast<HostId>(random.below(shape.hosts));
  return shape;
}

Temper draw_temper(Random& random, const Shape& shape) {
  Temper temper;
  if (random.one_in(3)) temper.newest_first = random.between(1, 6);
  if (random.one_in(3)) temper.oldest_first = random.between(1, 6);
  if (random.one_in(4)) temper.slow_host = static_cast<int>(random.below(shape.hosts));
  temper.patience = random.between(1, 12);
  temper.unmaps = random.one_in(4);
  temper.repeats = shape.mutation == Mutation::kNone && random.one_in(4);
  return temper;
}

class Runner {
 public:
  explicit Runner(const RandomOptions& options) : options_(options) {}

  RandomResult run() {
    for (std::uint64_t n = 0; n < options_.schedules && result_.violation.empty(); ++n) {
      run_schedule(options_.first + n);
    }
    return std::move(result_);
  }

 private:
  void run_schedule(std::uint64_t number) {
    Random random(Random(options_.seed * 0x2545f4914f6cdd1d + number).next());
    Shape shape = options_.crowds    ? draw_crowd(random)
                  : options_.losses  ? draw_loss(random, options_.mutation)
                  : options_.members ? draw_members(random, options_.mutation)
                                     : draw_shape(random, options_.mutation);
    shape.blind = options_.history_alone;
    Temper temper = draw_temper(random, shape);
    if (shape.survive) {
      temper.repeats = false;
      temper.dies_after = random.below(shape.hosts * shape.ops * shape.vcpus_per_host * 8);
    }
    system_.reset(shape);
    way_.clear();
    const bool ended = run_events(random, temper);
    const char* violation = ended ? nullptr : "nobody advances";
    if (violation == nullptr && !options_.history_alone) violation = judge_end();
    if (violation == nullptr) violation = judge(system_.history());
    ++result_.schedules;
    ++result_.by_hosts[shape.hosts];
    result_.wide += shape.wide;
    result_.accesses += system_.history().size();
    result_.mutated += system_.mutated();
    if (violation != nullptr) report(number, shape, violation);
  }

  // Until nothing can happen any more, or something is wrong. false: there was no end to it.
  bool run_events(Random& random, const Temper& temper) {
    const unsigned limit = options_.crowds ? kMaxCrowdEvents : kMaxEvents;
    for (unsigned count = 0; system_.violation() == nullptr && count < limit; ++count) {
      events_.clear();
      system_.list_events(events_);
      if (events_.empty()) return true;
      Event event = system_.shape().survive && !system_.crashed()
                        ? pick_or_die(random, temper, count)
                        : pick(random, temper);
      if (temper.unmaps && random.one_in(16)) maybe_unmap(random, event);
      if (temper.repeats && random.one_in(12)) maybe_repeat(event);
      way_.push_back(event);
      system_.run(event);
      ++result_.events;
    }
    return system_.violation() != nullptr;
  }

  Event pick(Random& random, const Temper& temper) {
    for (unsigned tries = 0;; ++tries) {
      const unsigned lot = random.below(8);
      std::size_t index = random.below(events_.size());
      if (lot < temper.newest_first) {
        index = events_.size() - 1;
      } else if (7 - lot < temper.oldest_first) {
        index = 0;
      }
      const bool held_back = temper.slow_host >= 0 && tries < temper.patience &&
                             system_.goes_to(events_[index]) == temper.slow_host;
      if (!held_back) return events_[index];
    }
  }

  // At its time, or when nothing else is left to happen.
  Event pick_or_die(Random& random, const Temper& temper, unsigned count) {
    const auto dies = [](const Event& event) { return event.kind == Event::Kind::kCrash; };
    const auto death = std::find_if(events_.begin(), events_.end(), dies);
    if (count >= temper.dies_after || events_.size() == 1) return *death;
    events_.erase(death);
    return pick(random, temper);
  }

  void maybe_unmap(Random& random, Event& event) {
    const auto host = static_cast<std::uint16_t>(random.below(system_.shape().hosts));
    const auto page = static_cast<std::uint8_t>(random.below(system_.shape().pages));
    const Event unmap{Event::Kind::kUnmap, host, page};
    if (system_.can_run(unmap)) event = unmap;
  }

  void maybe_repeat(Event& event) {
    const Event repeat{Event::Kind::kRepeat, event.a};
    if (event.kind != Event::Kind::kDeliver || !system_.can_run(repeat)) return;
    event = repeat;
    ++result_.repeated;
  }

  const char* judge_end() {
    if (system_.violation() == nullptr && system_.stopped()) {
      ++result_.stopped;
      return system_.shape().idle ? "a host that only managed took the domain with it" : nullptr;
    }
    if (!system_.whole()) return "the hosts that are left do not go on";
    for (unsigned page = 0; page < system_.shape().pages; ++page) {
      if (system_.violation() == nullptr) system_.check_directory(page);
    }
    if (system_.violation() != nullptr) return system_.violation();
    return system_.finished() ? nullptr : "deadlock: a vCPU waits for ever";
  }

  const char* judge(const History& history) {
    if (!options_.history_alone && check_witness(history) == Judgement::kViolation) {
      return "I2: a read missed the last write";
    }
    const Judgement graph = check_order_graph(history);
    if (graph == Judgement::kViolation) return "I2: not sequentially consistent (order graph)";
    result_.by_graph += graph == Judgement::kConsistent;
    const Judgement search = check_by_search(history, options_.search_budget);
    if (search == Judgement::kViolation) return "I2: not sequentially consistent (search)";
    result_.by_search += search == Judgement::kConsistent;
    result_.search_undecided += search == Judgement::kUndecided;
    return nullptr;
  }

  void report(std::uint64_t number, const Shape& shape, const char* violation) {
    result_.violation = violation;
    result_.violated_at = number;
    system_.reset(shape);
    for (const Event& event : way_) {
      result_.trace += "  " + system_.describe(event) + "\n";
      system_.run(event);
    }
    result_.trace += system_.describe_state();
  }

  RandomOptions options_;
  RandomResult result_;
  System system_;
  std::vector<Event> events_, way_;
};

}  // namespace

void RandomResult::add(const RandomResult& other) {
  schedules += other.schedules;
  events += other.events;
  accesses += other.accesses;
  repeated += other.repeated;
  mutated += other.mutated;
  wide += other.wide;
  stopped += other.stopped;
  by_graph += other.by_graph;
  by_search += other.by_search;
  search_undecided += other.search_undecided;
  for (unsigned hosts = 0; hosts <= kMaxSimHosts; ++hosts) by_hosts[hosts] += other.by_hosts[hosts];
  if (violation.empty() && !other.violation.empty()) {
    violation = other.violation;
    violated_at = other.violated_at;
    trace = other.trace;
  }
}

RandomResult run_random(const RandomOptions& options) { return Runner(options).run(); }

RandomResult run_random_in(unsigned threads, const RandomOptions& options) {
  std::vector<RandomResult> results(threads);
  std::vector<std::thread> workers;
  std::uint64_t first = options.first;
  for (unsigned i = 0; i < threads; ++i) {
    RandomOptions part = options;
    part.first = first;
    part.schedules = options.schedules / threads + (i < options.schedules % threads ? 1 : 0);
    first += part.schedules;
    workers.emplace_back([&results, i, part] { results[i] = run_random(part); });
  }
  RandomResult all;
  for (unsigned i = 0; i < threads; ++i) {
    workers[i].join();
    all.add(results[i]);
  }
  return all;
}

}  // namespace xenspan::dsm::sim
