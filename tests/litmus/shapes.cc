#include "tests/litmus/shapes.h"

#include <algorithm>
#include <cstring>

#include "tests/litmus/shape_table.h"

namespace xenspan::litmus {
namespace {

bool contains(const char* list, const Outcome& outcome) {
  for (const char* at = list; *at != '\0';) {
    const std::size_t length = std::strcspn(at, " ");
    if (outcome.size() == length && outcome.compare(0, length, at, length) == 0) return true;
    at += length + (at[length] == ' ' ? 1 : 0);
  }
  return false;
}

// The values that a variable can have: at any time, or at last.
std::string values_of(const Shape& shape, unsigned variable, bool at_last) {
  std::string values = at_last ? "" : "0";
  for (const auto& thread : shape.code) {
    for (const Op& op : thread) {
      if (op.kind == Op::Kind::kStore && op.variable == variable)
        values += static_cast<char>('0' + op.operand);
    }
  }
  std::sort(values.begin(), values.end());
  return values;
}

// For each digit of an outcome, the values it can have.
std::vector<std::string> digits_of(const Shape& shape) {
  std::vector<std::string> digits(shape.registers);
  for (const auto& thread : shape.code) {
    for (const Op& op : thread) {
      if (op.kind == Op::Kind::kLoad) digits[op.operand] = values_of(shape, op.variable, false);
    }
  }
  for (unsigned variable = 0; variable < shape.variables; ++variable) {
    if (shape.last[variable]) digits.push_back(values_of(shape, variable, true));
  }
  return digits;
}

}  // namespace

const char* name_of(Variant variant) {
  switch (variant) {
    case Variant::kPlain: return "plain";
    case Variant::kFenced: return "fenced";
    case Variant::kLocked: return "locked";
  }
  return "?";
}

std::span<const Shape> shapes() { return kShapes; }

const Shape* find_shape(const std::string& name) {
  for (const Shape& shape : kShapes) {
    if (shape.name == name) return &shape;
  }
  return nullptr;
}

std::string for_people(const Outcome& outcome) {
  std::string text;
  for (const char digit : outcome) {
    if (!text.empty()) text += ',';
    text += digit;
  }
  return text;
}

unsigned outcome_size(const Shape& shape) {
  return shape.registers +
         static_cast<unsigned>(std::count(shape.last.begin(), shape.last.end(), true));
}

std::string outcome_names(const Shape& shape) {
  std::string text;
  for (unsigned i = 0; i < shape.registers; ++i) text += (i > 0 ? ",r" : "r") + std::to_string(i);
  for (unsigned variable = 0; variable < shape.variables; ++variable) {
    if (!shape.last[variable]) continue;
    if (!text.empty()) text += ',';
    text += variable == kX ? 'x' : 'y';
  }
  return text;
}

bool is_allowed(const Shape& shape, Variant variant, const Outcome& outcome) {
  return contains(shape.allowed, outcome) || is_store_buffering(shape, variant, outcome);
}

bool is_store_buffering(const Shape& shape, Variant variant, const Outcome& outcome) {
  return variant == Variant::kPlain && contains(shape.store_buffer, outcome);
}

std::vector<Outcome> conceivable_outcomes(const Shape& shape) {
  std::vector<Outcome> all{""};
  for (const std::string& digit : digits_of(shape)) {
    std::vector<Outcome> longer;
    for (const Outcome& start : all) {
      for (const char value : digit) longer.push_back(start + value);
    }
    all = std::move(longer);
  }
  return all;
}

int only_value(const Shape& shape, unsigned variable) {
  const std::string values = values_of(shape, variable, true);
  return values.size() == 1 ? values[0] - '0' : -1;
}

}  // namespace xenspan::litmus
