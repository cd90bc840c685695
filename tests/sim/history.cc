#include "tests/sim/history.h"

#include <algorithm>
#include <array>
#include <unordered_set>

namespace xenspan::dsm::sim {
namespace {

constexpr unsigned kPages = 4;  // check_order_graph: any number
using Memory = std::array<Value, kPages>;

std::size_t threads_of(const History& history) {
  std::size_t threads = 0;
  for (const Operation& one : history) threads = std::max<std::size_t>(threads, one.thread + 1u);
  return threads;
}

// Edges of "must come before" in a legal serialisation, and whether they form a cycle.
class OrderGraph {
 public:
  explicit OrderGraph(std::size_t nodes) : after_(nodes), incoming_(nodes, 0) {}
  void add(std::size_t before, std::size_t after) {
    after_[before].push_back(static_cast<std::uint32_t>(after));
    ++incoming_[after];
  }
  bool has_cycle() {
    std::vector<std::size_t> ready;
    for (std::size_t node = 0; node < after_.size(); ++node) {
      if (incoming_[node] == 0) ready.push_back(node);
    }
    std::size_t sorted = 0;
    while (!ready.empty()) {
      const std::size_t node = ready.back();
      ready.pop_back();
      ++sorted;
      for (std::size_t next : after_[node]) {
        if (--incoming_[next] == 0) ready.push_back(next);
      }
    }
    return sorted != after_.size();
  }

 private:
  std::vector<std::vector<std::uint32_t>> after_;
  std::vector<unsigned> incoming_;
};

void add_program_order(const History& history, OrderGraph& graph) {
  std::vector<std::int64_t> last(threads_of(history), -1);
  for (std::size_t i = 0; i < history.size(); ++i) {
    std::int64_t& before = last[history[i].thread];
    if (before >= 0) graph.add(static_cast<std::size_t>(before), i);
    before = static_cast<std::int64_t>(i);
  }
}

// Writes of one page by growing value.
std::vector<std::size_t> writes_of(const History& history, unsigned page) {
  std::vector<std::size_t> writes;
  for (std::size_t i = 0; i < history.size(); ++i) {
    if (history[i].write && history[i].page == page) writes.push_back(i);
  }
  std::sort(writes.begin(), writes.end(),
            [&](std::size_t a, std::size_t b) { return history[a].value < history[b].value; });
  return writes;
}

// false: a read saw a value that nobody wrote.
bool add_page_order(const History& history, unsigned page, OrderGraph& graph) {
  const std::vector<std::size_t> writes = writes_of(history, page);
  for (std::size_t i = 1; i < writes.size(); ++i) graph.add(writes[i - 1], writes[i]);
  for (std::size_t i = 0; i < history.size(); ++i) {
    if (history[i].write || history[i].page != page) continue;
    auto next = writes.begin();  // the first write after the one this read saw
    if (history[i].value != 0) {
      next = std::lower_bound(
          writes.begin(), writes.end(), history[i].value,
          [&](std::size_t write, Value value) { return history[write].value < value; });
      if (next == writes.end() || history[*next].value != history[i].value) return false;
      graph.add(*next++, i);
    }
    if (next != writes.end()) graph.add(i, *next);
  }
  return true;
}

class Search {
 public:
  Search(const History& history, unsigned budget)
      : budget_(budget), programs_(threads_of(history)), at_(programs_.size(), 0) {
    for (const Operation& operation : history) programs_[operation.thread].push_back(operation);
  }
  Judgement run() {
    if (extend()) return Judgement::kConsistent;
    return budget_ == 0 ? Judgement::kUndecided : Judgement::kViolation;
  }

 private:
  bool done(std::size_t thread) const { return at_[thread] == programs_[thread].size(); }
  const Operation& next(std::size_t thread) const { return programs_[thread][at_[thread]]; }

  // A read that fits now can go first: it changes nothing, so no serialisation is lost.
  void take_reads() {
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t thread = 0; thread < programs_.size(); ++thread) {
        while (!done(thread) && !next(thread).write &&
               memory_[next(thread).page] == next(thread).value) {
          ++at_[thread];
          moved = true;
        }
      }
    }
  }
  std::uint64_t fingerprint() const {
    std::uint64_t hash = 0xcbf29ce484222325;
    const auto add = [&](std::uint64_t x) { hash = (hash ^ x) * 0x100000001b3 ^ hash >> 29; };
    for (unsigned position : at_) add(position);
    for (Value value : memory_) add(value);
    return hash;
  }
  bool extend() {
    take_reads();
    bool finished = true;
    for (std::size_t thread = 0; thread < programs_.size(); ++thread)
      finished = finished && done(thread);
    if (finished) return true;
    if (budget_ == 0) return false;
    --budget_;
    if (!seen_.insert(fingerprint()).second) return false;
    const auto at = at_;
    const Memory memory = memory_;
    for (std::size_t thread = 0; thread < programs_.size(); ++thread) {
      if (done(thread) || !next(thread).write) continue;
      memory_[next(thread).page] = next(thread).value;
      ++at_[thread];
      if (extend()) return true;
      at_ = at;
      memory_ = memory;
    }
    return false;
  }

  unsigned budget_;
  std::vector<std::vector<Operation>> programs_;
  std::vector<unsigned> at_;
  Memory memory_{};
  std::unordered_set<std::uint64_t> seen_;
};

}  // namespace

Judgement check_witness(const History& history) {
  Memory memory{};
  for (const Operation& operation : history) {
    if (operation.write) {
      memory[operation.page] = operation.value;
    } else if (memory[operation.page] != operation.value) {
      return Judgement::kViolation;
    }
  }
  return Judgement::kConsistent;
}

Judgement check_order_graph(const History& history) {
  for (const Operation& operation : history) {
    if (operation.write && operation.value == 0) return Judgement::kUndecided;
  }
  OrderGraph graph(history.size());
  add_program_order(history, graph);
  unsigned pages = 0;
  for (const Operation& operation : history) pages = std::max(pages, operation.page + 1u);
  for (unsigned page = 0; page < pages; ++page) {
    if (!add_page_order(history, page, graph)) return Judgement::kViolation;
  }
  return graph.has_cycle() ? Judgement::kViolation : Judgement::kConsistent;
}

Judgement check_by_search(const History& history, unsigned budget) {
  return Search(history, budget).run();
}

}  // namespace xenspan::dsm::sim
