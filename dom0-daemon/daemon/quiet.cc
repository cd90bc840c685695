#include "dom0-daemon/daemon/quiet.h"

#include <cstdlib>

namespace xenspan::daemon {
namespace {

// What the one says of the other; -1: nothing.
std::int64_t count(const Json& one, const char* what, const std::string& other) {
  const Json* list = array_field(one, what);
  const std::size_t at = std::strtoul(other.c_str(), nullptr, 10);
  if (list == nullptr || at >= list->size()) return -1;
  const auto number = whole_number((*list)[at]);
  return number ? static_cast<std::int64_t>(*number) : -1;
}

}  // namespace

bool is_quiet(const Json& traffic) {
  for (const auto& [from, one] : traffic.items()) {
    if (!flag_field(one, "idle")) return false;
    for (const auto& [to, other] : traffic.items()) {
      if (from == to) continue;
      const std::int64_t sent = count(one, "sent", to);
      if (sent < 0 || sent != count(other, "received", from)) return false;
    }
  }
  return true;
}

}  // namespace xenspan::daemon
