// The concurrent engine, several slices in one process over the simulated network: histories are
// judged for sequential consistency, rights for I1, and a host that is cut off has to end the
// domain, not hang it. --seed N.
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/sim/slice_fixture.h"

namespace {

using namespace xenspan::dsm;
using namespace xenspan::dsm::sim;

struct Run {
  const char* name;
  Domain::Config domain;
  unsigned threads;         // a host
  unsigned accesses;        // a thread
  unsigned discards = 0;    // one access in so many is a discard; 0: none
  unsigned cut_after = 0;   // thread 0 isolates host 1 after so many accesses; 0: never
  bool slots_move = false;  // all the time
};

// All vCPUs meet after every few accesses: otherwise one runs through its part while the others
// wait for a core.
constexpr unsigned kRound = 10;

struct Tally {
  explicit Tally(unsigned vcpus) : round(vcpus) {}
  std::atomic<std::uint64_t> stopped{0};
  std::atomic<bool> over{false};
  std::uint64_t moves = 0;  // of all slots of a host at once
  std::barrier<> round;
};

class Lot {
 public:
  explicit Lot(std::uint64_t seed) : state_(seed * 2862933555777941757 + 3037000493) {}
  unsigned below(unsigned bound) {
    state_ = state_ * 6364136223846793005 + 1442695040888963407;
    return static_cast<unsigned>((state_ >> 33) % bound);
  }

 private:
  std::uint64_t state_;
};

// One vCPU: false when its engine has stopped.
bool touch(Slice& slice, Gfn gfn, bool write, Value& value) {
  while (!slice.access(gfn, write, value)) {
    const Right wanted = write ? Right::kExclusive : Right::kShared;
    if (slice.engine().acquire(gfn, wanted) == Outcome::kStopped) return false;
  }
  return true;
}

// Ends with its accesses made, or false when its engine has stopped.
bool run_accesses(Domain& domain, const Run& run, unsigned vcpu, History& history, Tally& tally) {
  Slice& slice = domain.slice(vcpu / run.threads);
  Lot lot(run.domain.seed * 100 + vcpu);
  for (unsigned i = 0; i < run.accesses; ++i) {
    if (i % kRound == 0) tally.round.arrive_and_wait();
    if (run.cut_after != 0 && vcpu == 0 && i == run.cut_after) domain.network().isolate(1);
    const auto page = static_cast<std::uint8_t>(lot.below(static_cast<unsigned>(run.domain.pages)));
    const bool write = lot.below(3) == 0;
    if (run.discards != 0 && lot.below(run.discards) == 0) {
      if (slice.engine().discard(page, 1) == Outcome::kStopped) return false;
      continue;
    }
    Value value = 0;
    if (!touch(slice, page, write, value)) return false;
    history.push_back({static_cast<std::uint8_t>(vcpu), page, write, value});
  }
  return true;
}

void run_vcpu(Domain& domain, const Run& run, unsigned vcpu, History& history, Tally& tally) {
  if (!run_accesses(domain, run, vcpu, history, tally)) ++tally.stopped;
  tally.round.arrive_and_drop();
}

// All slots to one host, then to the next; now and then shares for all.
void move_slots(Domain& domain, Tally& tally) {
  const unsigned hosts = domain.config().hosts;
  for (unsigned turn = 0; !tally.over; ++turn) {
    const unsigned host = turn % hosts;
    const HostMask all = (HostMask{1} << hosts) - 1;
    const HostMask owners = turn % 4 == 3 ? all : mask_of(static_cast<HostId>(host));
    if (!domain.slice(host).engine().take_slots(owners)) return;
    ++tally.moves;
  }
}

const char* judge(const Run& run, Domain& domain, const History& history, const Tally& tally) {
  const unsigned vcpus = run.domain.hosts * run.threads;
  if (domain.violations() != 0) return "I1: a right was granted beside one that it excludes";
  for (const Operation& operation : history) {
    if (operation.value == ~Value{0}) return "I2: a torn page was read";
  }
  if (run.cut_after != 0) {
    if (tally.stopped != vcpus) return "I4: a vCPU did not hear that its domain has lost a host";
    for (unsigned host = 0; host < run.domain.hosts; ++host) {
      if (domain.slice(host).engine().stop_cause().empty()) return "I4: stopped without a cause";
    }
  } else if (tally.stopped != 0) {
    return "an engine stopped";
  }
  if (run.slots_move && tally.moves < 3) return "slots did not move";
  // After a discard zeros are not unique, so that a history tells nothing.
  if (run.discards != 0) return nullptr;
  return check_order_graph(history) == Judgement::kConsistent
             ? nullptr
             : "I2: the history is not sequentially consistent";
}

bool run_one(const Run& run) {
  const unsigned vcpus = run.domain.hosts * run.threads;
  std::vector<History> histories(vcpus);
  Tally tally(vcpus);
  Domain domain(run.domain);
  std::vector<std::thread> threads;
  for (unsigned vcpu = 0; vcpu < vcpus; ++vcpu) {
    threads.emplace_back([&, vcpu] { run_vcpu(domain, run, vcpu, histories[vcpu], tally); });
  }
  std::thread mover;
  if (run.slots_move) mover = std::thread([&] { move_slots(domain, tally); });
  for (std::thread& thread : threads) thread.join();
  tally.over = true;
  if (mover.joinable()) mover.join();
  History all;
  for (const History& history : histories) all.insert(all.end(), history.begin(), history.end());
  const char* violation = judge(run, domain, all, tally);
  std::uint64_t messages = 0;
  for (unsigned host = 0; host < run.domain.hosts; ++host) {
    messages += domain.network().at(static_cast<HostId>(host)).traffic().messages_sent;
  }
  std::printf(
      "engine: %s, seed %llu: %u hosts x %u vCPUs, %llu pages, %zu accesses, %llu messages: %s\n",
      run.name, static_cast<unsigned long long>(run.domain.seed), run.domain.hosts, run.threads,
      static_cast<unsigned long long>(run.domain.pages), all.size(),
      static_cast<unsigned long long>(messages), violation ? violation : "good");
  if (violation != nullptr) {
    std::printf("  host 0's cause: %s\n", domain.slice(0).engine().stop_cause().c_str());
  }
  std::fflush(stdout);
  return violation == nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t seed = 1;
  if (argc == 3 && std::strcmp(argv[1], "--seed") == 0) {
    seed = std::strtoull(argv[2], nullptr, 10);
  } else if (argc != 1) {
    std::fprintf(stderr, "usage: engine_test [--seed N]\n");
    return 2;
  }
  const Run runs[] = {
      {"one page", {.hosts = 2, .pages = 1, .seed = seed}, 1, 1500},
      {"few pages", {.hosts = 3, .pages = 6, .seed = seed}, 2, 1000},
      {"more threads than lanes", {.hosts = 2, .pages = 40, .seed = seed}, 4, 1000},
      {"discards", {.hosts = 3, .pages = 6, .seed = seed}, 2, 1000, 8},
      {"slots change hands", {.hosts = 3, .pages = 6, .seed = seed}, 2, 1500, 0, 0, true},
      {"a host is cut off", {.hosts = 3, .pages = 6, .seed = seed}, 2, 1'000'000, 0, 200},
  };
  bool good = true;
  for (const Run& run : runs) good = run_one(run) && good;
  // The checks have to see an error when there is one.
  Run broken{"has to be found bad: host 1 keeps its mappings",
             {.hosts = 3, .pages = 6, .seed = seed},
             2,
             300};
  broken.domain.keeps_mappings = true;
  good = !run_one(broken) && good;
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
