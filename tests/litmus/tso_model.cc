#include "tests/litmus/tso_model.h"

#include <utility>

namespace xenspan::litmus {
namespace {

using Write = std::pair<std::uint8_t, std::uint8_t>;  // variable, value

struct State {
  std::array<std::uint8_t, kMaxVariables> memory{};
  std::array<std::uint8_t, kMaxRegisters> registers{};
  std::array<std::uint8_t, kMaxThreads> next{};  // op of each thread
  std::array<bool, kMaxThreads> fenced{};        // has passed the fence before its second op
  std::array<std::vector<Write>, kMaxThreads> buffers;
  friend auto operator<=>(const State&, const State&) = default;
};

class Machine {
 public:
  Machine(const Shape& shape, Variant variant, bool sequentially_consistent)
      : shape_(shape), variant_(variant), consistent_(sequentially_consistent) {}

  void explore(const State& state) {
    if (!known_.insert(state).second) return;
    bool ended = true;
    for (unsigned thread = 0; thread < shape_.threads; ++thread) {
      if (!state.buffers[thread].empty()) {
        ended = false;
        State after = state;
        const Write write = after.buffers[thread].front();
        after.buffers[thread].erase(after.buffers[thread].begin());
        after.memory[write.first] = write.second;
        explore(after);
      }
      if (state.next[thread] < 2) {
        ended = false;
        step(state, thread);
      }
    }
    if (ended) outcomes.insert(outcome_of(state));
  }

  std::set<Outcome> outcomes;

 private:
  void step(const State& state, unsigned thread) {
    const Op& op = shape_.code[thread][state.next[thread]];
    State after = state;
    const bool empty = state.buffers[thread].empty();
    if (variant_ == Variant::kFenced && state.next[thread] == 1 && !state.fenced[thread]) {
      if (!empty) return;
      after.fenced[thread] = true;
      return explore(after);
    }
    ++after.next[thread];
    if (op.kind == Op::Kind::kLoad) {
      after.registers[op.operand] = value_for(state, thread, op.variable);
    } else if (op.kind == Op::Kind::kStore && (variant_ == Variant::kLocked || consistent_)) {
      if (!empty) return;
      after.memory[op.variable] = op.operand;
    } else if (op.kind == Op::Kind::kStore) {
      after.buffers[thread].emplace_back(op.variable, op.operand);
    }
    explore(after);
  }

  static std::uint8_t value_for(const State& state, unsigned thread, std::uint8_t variable) {
    const auto& buffer = state.buffers[thread];
    for (auto write = buffer.rbegin(); write != buffer.rend(); ++write) {
      if (write->first == variable) return write->second;
    }
    return state.memory[variable];
  }

  Outcome outcome_of(const State& state) const {
    Outcome outcome;
    for (unsigned i = 0; i < shape_.registers; ++i)
      outcome += static_cast<char>('0' + state.registers[i]);
    for (unsigned variable = 0; variable < shape_.variables; ++variable) {
      if (shape_.last[variable]) outcome += static_cast<char>('0' + state.memory[variable]);
    }
    return outcome;
  }

  const Shape& shape_;
  Variant variant_;
  bool consistent_;
  std::set<State> known_;
};

}  // namespace

std::set<Outcome> model_outcomes(const Shape& shape, Variant variant,
                                 bool sequentially_consistent) {
  Machine machine(shape, variant, sequentially_consistent);
  machine.explore({});
  return machine.outcomes;
}

}  // namespace xenspan::litmus
