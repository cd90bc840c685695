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

// The programs lie one after another in one array: with hundreds of threads most of the time goes
// by looking at the next operation of each.
class Search {
 public:
  Search(const History& history, unsigned budget) : budget_(budget), left_(history.size()) {
    const std::size_t threads = threads_of(history);
    end_.assign(threads, 0);
    for (const Operation& operation : history) ++end_[operation.thread];
    at_.resize(threads);
    std::uint32_t begin = 0;
    for (std::size_t thread = 0; thread < threads; ++thread) {
      at_[thread] = begin;
      begin = end_[thread] += begin;
    }
    operations_.resize(history.size());
    std::vector<std::uint32_t> room = at_;
    for (const Operation& operation : history) operations_[room[operation.thread]++] = operation;
  }
  Judgement run() {
    if (extend()) return Judgement::kConsistent;
    return budget_ == 0 ? Judgement::kUndecided : Judgement::kViolation;
  }

 private:
  // A read that fits now can go first: it changes nothing, so no serialisation is lost, and it
  // makes nothing fit that did not fit before.
  void take_reads() {
    for (std::size_t thread = 0; thread < at_.size(); ++thread) {
      std::uint32_t at = at_[thread];
      for (; at != end_[thread]; ++at) {
        const Operation& next = operations_[at];
        if (next.write || memory_[next.page] != next.value) break;
      }
      left_ -= at - at_[thread];
      at_[thread] = at;
    }
  }
  std::uint64_t fingerprint() const {
    std::uint64_t hash = 0xcbf29ce484222325, odd = 1;
    for (std::uint32_t at : at_) {
      odd += 0x9e3779b97f4a7c16;
      const std::uint64_t mixed = (odd ^ odd >> 31) * (at + 0x100000001b3);
      hash += mixed ^ mixed >> 29;
    }
    for (Value value : memory_) hash = (hash ^ value) * 0x100000001b3 ^ hash >> 29;
    return hash;
  }
  bool extend() {
    take_reads();
    if (left_ == 0) return true;
    if (budget_ == 0) return false;
    --budget_;
    if (!seen_.insert(fingerprint()).second) return false;
    const auto at = at_;
    const Memory memory = memory_;
    const std::size_t left = left_;
    for (std::size_t thread = 0; thread < at_.size(); ++thread) {
      if (at_[thread] == end_[thread]) continue;
      const Operation& next = operations_[at_[thread]];
      if (!next.write) continue;
      memory_[next.page] = next.value;
      ++at_[thread];
      --left_;
      if (extend()) return true;
      at_ = at;
      memory_ = memory;
      left_ = left;
    }
    return false;
  }

  unsigned budget_;
  std::size_t left_;                     // operations not done yet
  std::vector<Operation> operations_;    // by thread
  std::vector<std::uint32_t> at_, end_;  // of each thread's operations
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
