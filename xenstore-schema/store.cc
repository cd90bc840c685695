#include "xenstore-schema/store.h"

#include <fmt/format.h>

#include <cerrno>

namespace xenspan::xenstore {
namespace {

// Each attempt that loses means that another writer won, so this many in a row is a store that
// somebody floods.
constexpr int kMaxAttempts = 1000;

bool is_path_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '/' || c == '_' || c == '@';
}

Error bad_path(const std::string& path, std::string_view why) {
  return Error{EINVAL, fmt::format("xenstore path '{}' {}", path.substr(0, 200), why)};
}

Status attempt(Store& store, const std::function<Status(Nodes&)>& body) {
  auto transaction = store.begin();
  if (!transaction) return transaction.error();
  if (Status status = body(**transaction); !status) return status;
  return (*transaction)->commit();
}

}  // namespace

Result<std::optional<std::string>> Nodes::find(const std::string& path) {
  auto value = read(path);
  if (value) return std::optional<std::string>(std::move(*value));
  if (value.error().code == ENOENT) return std::optional<std::string>();
  return value.error();
}

Status Store::atomically(const std::function<Status(Nodes&)>& body) {
  for (int i = 0; i < kMaxAttempts; ++i) {
    Status status = attempt(*this, body);
    if (status || status.error().code != EAGAIN) return status;
  }
  return Error{
      EAGAIN,
      fmt::format("a xenstore transaction lost to other writers {} times: stop the program that "
                  "writes without pause (xenstore-watch /tool/xenspan shows what)",
                  kMaxAttempts)};
}

Status check_path(const std::string& path) {
  if (path.empty() || path[0] != '/') return bad_path(path, "does not begin with /");
  if (path.size() >= kMaxPath)
    return bad_path(path, fmt::format("has more than {} characters", kMaxPath - 1));
  if (path.size() > 1 && path.back() == '/') return bad_path(path, "ends with /");
  if (path.find("//") != std::string::npos) return bad_path(path, "has an empty part");
  for (char c : path) {
    if (!is_path_character(c))
      return bad_path(path, "may have only letters, digits and the characters -/_@");
  }
  return {};
}

Status check_node(const std::string& path, std::string_view value) {
  if (Status status = check_path(path); !status) return status;
  const size_t most = kMaxPayload - path.size() - 1;
  if (value.size() <= most) return {};
  return Error{E2BIG, fmt::format("xenstore {}: the value has {} bytes, and {} fit: shorten it",
                                  path, value.size(), most)};
}

bool is_below(const std::string& path, const std::string& above) {
  if (above == "/") return !path.empty() && path[0] == '/';
  return path.starts_with(above) && (path.size() == above.size() || path[above.size()] == '/');
}

}  // namespace xenspan::xenstore
