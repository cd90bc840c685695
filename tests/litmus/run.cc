#include "tests/litmus/run.h"

#include <emmintrin.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "tests/litmus/bodies.h"

namespace xenspan::litmus {
namespace {

// A page of its own for whatever threads share beside the arena.
struct alignas(kPageBytes) Gate {
  std::atomic<std::uint64_t> arrived{0};
};

// What one worker saw; written by it alone, read when all have ended.
struct alignas(kPageBytes) Worker {
  std::vector<std::uint8_t> seen;  // two bytes an iteration, in its role of that round
  std::vector<std::uint8_t> last;  // the same, of the iterations that it collected
  int vcpu = -1;
};

// The value 0 of a round, as it lies in memory: a value of an older round is then told from it.
std::uint64_t base_of(std::uint64_t round) { return 4 * (round + 1); }

// On one machine two workers could stay on one processor for a whole run, and never meet.
void go_to_processor(unsigned worker) {
  cpu_set_t all, one;
  CPU_ZERO(&all);
  if (::sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) == 0) return;
  unsigned skip = worker % static_cast<unsigned>(CPU_COUNT(&all));
  int processor = 0;
  while (!CPU_ISSET(processor, &all) || skip-- > 0) ++processor;
  CPU_ZERO(&one);
  CPU_SET(processor, &one);
  ::sched_setaffinity(0, sizeof one, &one);  // where it is not allowed the run is still right
}

// Lets the caller keep the processors that it had.
class SavedAffinity {
 public:
  SavedAffinity() { known_ = ::sched_getaffinity(0, sizeof set_, &set_) == 0; }
  ~SavedAffinity() {
    if (known_) ::sched_setaffinity(0, sizeof set_, &set_);
  }
  SavedAffinity(const SavedAffinity&) = delete;
  SavedAffinity& operator=(const SavedAffinity&) = delete;

 private:
  cpu_set_t set_;
  bool known_ = false;
};

class Run {
 public:
  Run(std::size_t shape, Variant variant, const Settings& settings)
      : shape_(shapes()[shape]),
        variant_(variant),
        settings_(settings),
        layout_(settings.pages, settings.burst),
        workers_(std::max(settings.processors, shape_.threads)) {
    for (unsigned thread = 0; thread < shape_.threads; ++thread)
      for (const bool gaps : {false, true})
        bodies_[gaps][thread] = body_of(shape, thread, variant, gaps);
    // Fresh pages each time, so that no run finds the pages as another one left them.
    void* memory = ::mmap(nullptr, Layout::kArenaBytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      std::perror("litmus: cannot get memory for the variables");
      std::exit(2);
    }
    arena_ = static_cast<std::uint8_t*>(memory);
  }
  ~Run() { ::munmap(arena_, Layout::kArenaBytes); }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  Outcomes go() {
    const SavedAffinity saved;
    const auto begin = std::chrono::steady_clock::now();
    std::vector<std::thread> threads;
    for (unsigned worker = 1; worker < workers_.size(); ++worker)
      threads.emplace_back([this, worker] { work(worker); });
    work(0);
    for (std::thread& thread : threads) thread.join();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    Outcomes outcomes{Tally(shape_, variant_), static_cast<unsigned>(workers_.size()), {}, 0};
    outcomes.seconds = spent.count();
    for (const Worker& worker : workers_) outcomes.vcpus.insert(worker.vcpu);
    count(outcomes.tally);
    return outcomes;
  }

 private:
  std::uint64_t rounds() const {
    return (settings_.iterations + kRoundInstances - 1) / kRoundInstances;
  }
  std::uint64_t* x_of(unsigned instance) const { return word(layout_.x_of(instance)); }
  std::uint64_t* y_of(unsigned instance) const { return word(layout_.y_of(instance)); }
  std::uint64_t* word(std::size_t at) const {
    return reinterpret_cast<std::uint64_t*>(arena_ + at);
  }
  unsigned role_of(unsigned worker, std::uint64_t round) const {
    return static_cast<unsigned>((worker + round) % workers_.size());
  }
  unsigned player_of(unsigned role, std::uint64_t round) const {
    const auto size = static_cast<unsigned>(workers_.size());
    return static_cast<unsigned>((role + size - round % size) % size);
  }
  unsigned collector_of(unsigned group, std::uint64_t round) const {
    return static_cast<unsigned>((group + round) % workers_.size());
  }

  // Waits for all workers. They leave at about the same time, so that they meet in the arena. Spins
  // for as long as a page or two take to come, then lets others have the processor.
  void meet(std::uint64_t& meetings) {
    const std::uint64_t all = ++meetings * workers_.size();
    gate_.arrived.fetch_add(1, std::memory_order_acq_rel);
    for (unsigned spins = 0; gate_.arrived.load(std::memory_order_acquire) < all; ++spins) {
      if (spins < 4000) {
        _mm_pause();
      } else {
        ::sched_yield();
      }
    }
  }

  void work(unsigned me) {
    Worker& worker = workers_[me];
    go_to_processor(me);
    worker.vcpu = ::sched_getcpu();
    worker.seen.resize(2 * rounds() * kRoundInstances);
    worker.last.resize(2 * rounds() * kRoundInstances);
    std::uint64_t meetings = 0;
    prepare(me, 0);
    meet(meetings);
    for (std::uint64_t round = 0; round < rounds(); ++round) {
      const unsigned role = role_of(me, round);
      if (role < shape_.threads) play(worker, role, round);
      meet(meetings);
      collect(worker, me, round);
      prepare(me, round + 1);
      meet(meetings);
    }
  }

  void play(Worker& worker, unsigned role, std::uint64_t round) {
    const Body body = bodies_[Layout::has_gaps(static_cast<unsigned>(round))][role];
    Row row;
    row.stride = layout_.stride() / sizeof(std::uint64_t);
    row.count = layout_.burst();
    row.base = base_of(round);
    for (unsigned step = 0; step < layout_.bursts(); ++step) {
      const unsigned first =
          layout_.burst() * layout_.burst_at(step, role, static_cast<unsigned>(round));
      row.x = x_of(first);
      row.y = y_of(first);
      row.seen = worker.seen.data() + 2 * (round * kRoundInstances + first);
      body(row);
    }
  }

  template <typename Do>
  void for_mine(unsigned me, std::uint64_t round, Do each) {
    for (unsigned instance = 0; instance < kRoundInstances; ++instance) {
      if (collector_of(instance / layout_.per_group(), round) == me) each(instance);
    }
  }

  // The last values of this worker's share of the instances.
  void collect(Worker& worker, unsigned me, std::uint64_t round) {
    const auto value = [round](const std::uint64_t* place) {
      const std::uint64_t found = __atomic_load_n(place, __ATOMIC_RELAXED) - base_of(round);
      return found <= 2 ? static_cast<std::uint8_t>(found) : kStrange;
    };
    for_mine(me, round, [&](unsigned instance) {
      std::uint8_t* to = worker.last.data() + 2 * (round * kRoundInstances + instance);
      to[0] = value(x_of(instance));
      to[1] = value(y_of(instance));
    });
  }

  // Sets the same share to 0, as it looks in the round to come.
  void prepare(unsigned me, std::uint64_t round) {
    for_mine(me, round == 0 ? 0 : round - 1, [&](unsigned instance) {
      __atomic_store_n(x_of(instance), base_of(round), __ATOMIC_RELAXED);
      __atomic_store_n(y_of(instance), base_of(round), __ATOMIC_RELAXED);
    });
  }

  void count(Tally& tally) const {
    for (std::uint64_t i = 0; i < rounds() * kRoundInstances; ++i) {
      const std::uint64_t round = i / kRoundInstances;
      const auto group = static_cast<unsigned>(i % kRoundInstances) / layout_.per_group();
      Ending ending;
      for (unsigned thread = 0; thread < shape_.threads; ++thread) {
        const std::uint8_t* seen = workers_[player_of(thread, round)].seen.data() + 2 * i;
        for (unsigned at = 0; at < 2; ++at) {
          const Op& op = shape_.code[thread][at];
          if (op.kind == Op::Kind::kLoad) ending.registers[op.operand] = seen[at];
        }
      }
      const std::uint8_t* last = workers_[collector_of(group, round)].last.data() + 2 * i;
      std::copy(last, last + kMaxVariables, ending.last.begin());
      tally.add(ending);
    }
  }

  const Shape& shape_;
  Variant variant_;
  Settings settings_;
  Layout layout_;
  std::array<std::array<Body, kMaxThreads>, 2> bodies_{};  // without and with gaps
  std::uint8_t* arena_ = nullptr;
  std::vector<Worker> workers_;
  Gate gate_;
};

}  // namespace

Outcomes run_shape(std::size_t shape, Variant variant, const Settings& settings) {
  Run run(shape, variant, settings);
  return run.go();
}

}  // namespace xenspan::litmus
