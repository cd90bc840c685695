#include "xenstore-schema/paths.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

namespace xenspan::xenstore {
namespace {

constexpr size_t kMaxHostName = 63;
constexpr std::string_view kUuidShape = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Takes the part before the next '/' off text.
std::string_view take_part(std::string_view& text) {
  const size_t slash = text.find('/');
  const std::string_view part = text.substr(0, slash);
  text = slash == std::string_view::npos ? std::string_view() : text.substr(slash + 1);
  return part;
}

std::optional<uint32_t> parse_index(std::string_view text) {
  uint32_t index = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return index;
}

std::optional<ParsedPath> parse_below_domain(std::string_view rest, ParsedPath parsed) {
  std::string_view after = rest;
  const std::string_view part = take_part(after);
  if (part == "member" && !after.empty()) {
    parsed.kind = ParsedPath::Kind::kMember;
    parsed.host = take_part(after);
    if (!is_host_name(parsed.host)) return std::nullopt;
  } else if (part == "vcpu" && !after.empty()) {
    const auto index = parse_index(take_part(after));
    if (!index) return std::nullopt;
    parsed.kind = ParsedPath::Kind::kVcpu;
    parsed.vcpu = *index;
  } else {
    after = rest;
  }
  parsed.node = after;
  return parsed;
}

}  // namespace

namespace paths {

std::string host(std::string_view name) { return fmt::format("{}/{}", kHosts, name); }
std::string domain(std::string_view uuid) { return fmt::format("{}/{}", kDomains, uuid); }
std::string members(std::string_view uuid) { return fmt::format("{}/{}/member", kDomains, uuid); }
std::string member(std::string_view uuid, std::string_view host) {
  return fmt::format("{}/{}/member/{}", kDomains, uuid, host);
}
std::string counters(std::string_view uuid, std::string_view host) {
  return fmt::format("{}/{}/member/{}/counters", kDomains, uuid, host);
}
std::string vcpus(std::string_view uuid) { return fmt::format("{}/{}/vcpu", kDomains, uuid); }
std::string vcpu(std::string_view uuid, uint32_t index) {
  return fmt::format("{}/{}/vcpu/{}", kDomains, uuid, index);
}
std::string config(std::string_view uuid) { return fmt::format("{}/{}", kConfigs, uuid); }

}  // namespace paths

std::optional<ParsedPath> parse_path(std::string_view path) {
  const std::string_view root = paths::kRoot;
  if (!path.starts_with(root) || path.size() <= root.size() || path[root.size()] != '/')
    return std::nullopt;
  std::string_view rest = path.substr(root.size() + 1);
  const std::string_view room = take_part(rest);
  const std::string_view name = take_part(rest);
  ParsedPath parsed;
  if (room == "host" && is_host_name(name)) {
    parsed.kind = ParsedPath::Kind::kHost;
    parsed.host = name;
    parsed.node = rest;
    return parsed;
  }
  if (!is_uuid(name)) return std::nullopt;
  parsed.uuid = name;
  if (room == "config") {
    parsed.kind = ParsedPath::Kind::kConfig;
    parsed.node = rest;
    return parsed;
  }
  if (room != "domain") return std::nullopt;
  parsed.kind = ParsedPath::Kind::kDomain;
  return parse_below_domain(rest, std::move(parsed));
}

bool is_host_name(std::string_view text) {
  return !text.empty() && text.size() <= kMaxHostName &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return is_digit(c) || is_letter(c) || c == '-' || c == '_'; });
}

bool is_uuid(std::string_view text) {
  if (text.size() != kUuidShape.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool fits = kUuidShape[i] == '-'
                          ? text[i] == '-'
                          : is_digit(text[i]) || (text[i] >= 'a' && text[i] <= 'f');
    if (!fits) return false;
  }
  return true;
}

Status check_host_name(std::string_view name) {
  if (is_host_name(name)) return {};
  return Error{
      EINVAL,
      fmt::format("host name '{}' cannot be used: take 1 to {} letters, digits, - and _ (the short "
                  "name of the machine, without its domain)",
                  name.substr(0, 100), kMaxHostName)};
}

Status check_uuid(std::string_view uuid) {
  if (is_uuid(uuid)) return {};
  return Error{EINVAL, fmt::format("'{}' is not a UUID: write it as {}, in small letters",
                                   uuid.substr(0, 100), kUuidShape)};
}

}  // namespace xenspan::xenstore
