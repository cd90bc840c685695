// Reading JSON that somebody else wrote: peers, the command line, slice workers.
//
// Nothing here throws. A missing member or one of the wrong type reads as "not there", so that each
// message handler decides in one line what is required. Threading: pure functions.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace xenspan::daemon {

using Json = nlohmann::json;

// A JSON object, or a sentence ("not a JSON object").
Result<Json> parse_object(std::string_view text);
// One line without a newline. Bytes that are not UTF-8 become U+FFFD; use is_utf8 first where that
// would matter.
std::string to_line(const Json& value);
bool is_utf8(std::string_view text);

// A number that is not negative and not a fraction.
std::optional<std::uint64_t> whole_number(const Json& value);
std::optional<std::string> text_field(const Json& object, const char* key);
std::string text_or(const Json& object, const char* key, std::string otherwise);
std::optional<std::uint64_t> number_field(const Json& object, const char* key);
std::uint64_t number_or(const Json& object, const char* key, std::uint64_t otherwise);
bool flag_field(const Json& object, const char* key);  // false when missing
// The member when it is an array (or object), else nullptr. Valid as long as `object`.
const Json* array_field(const Json& object, const char* key);
const Json* object_field(const Json& object, const char* key);
// All elements as texts; nothing when any element is not one.
std::optional<std::vector<std::string>> texts_field(const Json& object, const char* key);
std::optional<std::vector<std::uint64_t>> numbers_field(const Json& object, const char* key);

}  // namespace xenspan::daemon
