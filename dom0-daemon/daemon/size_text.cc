#include "dom0-daemon/daemon/size_text.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdint>

namespace xenspan::daemon {
namespace {

constexpr std::string_view kSuffixes = "KMGT";

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text, std::string_view what) {
  const Error bad{EINVAL, fmt::format("{} \"{}\" is not a size: write a number with K, M, G or T, "
                                      "for example 512M",
                                      what, text)};
  std::uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{}) return bad;
  std::string_view suffix(rest, static_cast<std::size_t>(end - rest));
  if (suffix.empty()) return number;
  const char letter =
      suffix.front() >= 'a' ? static_cast<char>(suffix.front() - 'a' + 'A') : suffix.front();
  const std::size_t power = kSuffixes.find(letter);
  suffix.remove_prefix(1);
  if (power == std::string_view::npos || !(suffix.empty() || suffix == "B" || suffix == "iB"))
    return bad;
  const int shift = 10 * (static_cast<int>(power) + 1);
  if (number > (UINT64_MAX >> shift)) return bad;
  return number << shift;
}

std::string size_text(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{}", bytes);
  double value = static_cast<double>(bytes);
  std::size_t power = 0;
  // 1023.95 would be shown as "1024.0".
  for (value /= 1024; value >= 1023.95 && power + 1 < kSuffixes.size(); value /= 1024) ++power;
  const bool whole = value >= 100 || std::abs(value - std::round(value)) < 0.05;
  return whole ? fmt::format("{:.0f}{}", value, kSuffixes[power])
               : fmt::format("{:.1f}{}", value, kSuffixes[power]);
}

}  // namespace xenspan::daemon
