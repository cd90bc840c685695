#include "tests/litmus/tally.h"

namespace xenspan::litmus {
namespace {

char digit(std::uint8_t value) { return value <= 2 ? static_cast<char>('0' + value) : '?'; }

}  // namespace

Outcome Tally::outcome_of(const Ending& ending) const {
  Outcome outcome;
  for (unsigned i = 0; i < shape_->registers; ++i) outcome += digit(ending.registers[i]);
  for (unsigned variable = 0; variable < shape_->variables; ++variable) {
    if (shape_->last[variable]) {
      outcome += digit(ending.last[variable]);
    } else if (ending.last[variable] != only_value(*shape_, variable)) {
      // The only store to this variable is not there at the end.
      outcome += variable == 0 ? 'X' : 'Y';
    }
  }
  return outcome;
}

void Tally::add(const Ending& ending) {
  const Outcome outcome = outcome_of(ending);
  ++counts_[outcome];
  ++total_;
  if (is_store_buffering(*shape_, variant_, outcome)) {
    ++store_buffering_;
  } else if (!is_allowed(*shape_, variant_, outcome)) {
    ++forbidden_;
  }
}

std::string Tally::text() const {
  std::string seen, wrong;
  for (const auto& [outcome, count] : counts_) {
    const std::string entry = for_people(outcome) + " " + std::to_string(count);
    if (!is_allowed(*shape_, variant_, outcome)) {
      wrong += (wrong.empty() ? "" : ", ") + entry;
      continue;
    }
    seen += (seen.empty() ? "" : ", ") + entry;
    if (is_store_buffering(*shape_, variant_, outcome)) seen += " (store buffer)";
  }
  std::string text = seen + "; forbidden " + std::to_string(forbidden_);
  if (!wrong.empty()) return text + ": SEEN " + wrong;
  // What was looked for and not seen.
  std::string names;
  unsigned count = 0;
  for (const Outcome& outcome : conceivable_outcomes(*shape_)) {
    if (is_allowed(*shape_, variant_, outcome) || ++count > 3) continue;
    names += (names.empty() ? "" : " ") + for_people(outcome);
  }
  if (count > 3) names += " and " + std::to_string(count - 3) + " more";
  return names.empty() ? text : text + " (" + names + ")";
}

}  // namespace xenspan::litmus
