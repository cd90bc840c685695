#include "dom0-daemon/daemon/json_fields.h"

#include <cerrno>

namespace xenspan::daemon {
namespace {

constexpr int kDeepest = 32;  // messages here have five levels

const Json* member(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

}  // namespace

Result<Json> parse_object(std::string_view text) {
  // Writing, copying and freeing a value recurse: text of a peer that is nested without end would
  // use up the stack.
  bool too_deep = false;
  const auto watch = [&](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > kDeepest;
    return depth <= kDeepest;
  };
  Json value = Json::parse(text, watch, /*allow_exceptions=*/false);
  if (too_deep) return Error{EBADMSG, "JSON nested too deep"};
  if (value.is_discarded() || !value.is_object()) return Error{EBADMSG, "not a JSON object"};
  return value;
}

std::string to_line(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const std::size_t more = byte < 0x80   ? 0
                             : byte < 0xc2 ? 9
                             : byte < 0xe0 ? 1
                             : byte < 0xf0 ? 2
                             : byte < 0xf5 ? 3
                                           : 9;
    if (more == 9 || i + more >= text.size()) return false;
    unsigned value = more == 0 ? byte : byte & (0x3fu >> more);
    for (std::size_t k = 1; k <= more; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xc0) != 0x80) return false;
      value = value << 6 | (next & 0x3f);
    }
    // Overlong forms, surrogates and what lies beyond Unicode.
    if ((more == 2 && value < 0x800) || (more == 3 && value < 0x10000)) return false;
    if ((value >= 0xd800 && value < 0xe000) || value > 0x10ffff) return false;
    i += more + 1;
  }
  return true;
}

// Numbers set from a C++ int are signed ones; those that were parsed are unsigned.
std::optional<std::uint64_t> whole_number(const Json& value) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  if (value.is_number_integer() && value.get<std::int64_t>() >= 0)
    return static_cast<std::uint64_t>(value.get<std::int64_t>());
  return std::nullopt;
}

std::optional<std::string> text_field(const Json& object, const char* key) {
  const Json* found = member(object, key);
  if (found == nullptr || !found->is_string()) return std::nullopt;
  return found->get_ref<const std::string&>();
}

std::string text_or(const Json& object, const char* key, std::string otherwise) {
  auto found = text_field(object, key);
  return found ? std::move(*found) : std::move(otherwise);
}

std::optional<std::uint64_t> number_field(const Json& object, const char* key) {
  const Json* found = member(object, key);
  if (found == nullptr) return std::nullopt;
  return whole_number(*found);
}

std::uint64_t number_or(const Json& object, const char* key, std::uint64_t otherwise) {
  return number_field(object, key).value_or(otherwise);
}

bool flag_field(const Json& object, const char* key) {
  const Json* found = member(object, key);
  return found != nullptr && found->is_boolean() && found->get<bool>();
}

const Json* array_field(const Json& object, const char* key) {
  const Json* found = member(object, key);
  return found != nullptr && found->is_array() ? found : nullptr;
}

const Json* object_field(const Json& object, const char* key) {
  const Json* found = member(object, key);
  return found != nullptr && found->is_object() ? found : nullptr;
}

std::optional<std::vector<std::string>> texts_field(const Json& object, const char* key) {
  const Json* found = array_field(object, key);
  if (found == nullptr) return std::nullopt;
  std::vector<std::string> texts;
  for (const Json& element : *found) {
    if (!element.is_string()) return std::nullopt;
    texts.push_back(element.get_ref<const std::string&>());
  }
  return texts;
}

std::optional<std::vector<std::uint64_t>> numbers_field(const Json& object, const char* key) {
  const Json* found = array_field(object, key);
  if (found == nullptr) return std::nullopt;
  std::vector<std::uint64_t> numbers;
  for (const Json& element : *found) {
    const auto number = whole_number(element);
    if (!number) return std::nullopt;
    numbers.push_back(*number);
  }
  return numbers;
}

}  // namespace xenspan::daemon
