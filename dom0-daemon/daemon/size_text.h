// Sizes as people write and read them: "512M", "4G", "65536". Suffixes K, M, G, T are powers of
// 1024 and may be followed by "B" or "iB". Threading: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace xenspan::daemon {

// `what` names the value in the error ("--memory").
Result<std::uint64_t> parse_size(std::string_view text, std::string_view what);
std::string size_text(std::uint64_t bytes);  // "1.5G", "640K", "12"

}  // namespace xenspan::daemon
