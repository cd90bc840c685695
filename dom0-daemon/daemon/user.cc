#include "dom0-daemon/daemon/user.h"

#include <fmt/format.h>
#include <pwd.h>
#include <sys/socket.h>

#include <cerrno>

namespace xenspan::daemon {
namespace {

std::optional<std::string> user_name(uid_t uid) {
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> buffer(16384);
  if (getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr)
    return std::nullopt;
  return entry.pw_name;
}

}  // namespace

Result<User> peer_user(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0)
    return system_error(errno, "cannot tell who is calling");
  User user;
  user.uid = credentials.uid;
  user.gid = credentials.gid;
  user.name = user_name(user.uid).value_or(fmt::format("uid {}", user.uid));
  user.groups.resize(65536);  // NGROUPS_MAX
  length = static_cast<socklen_t>(user.groups.size() * sizeof(gid_t));
  if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, user.groups.data(), &length) != 0)
    return system_error(errno, "cannot tell the groups of who is calling");
  user.groups.resize(length / sizeof(gid_t));
  return user;
}

Result<User> user_from(const Json& object, const std::string& own_host) {
  const auto uid = number_field(object, "uid");
  const auto gid = number_field(object, "gid");
  // (uid_t)-1 means "no change" to the kernel.
  if (!uid || !gid || *uid >= UINT32_MAX || *gid >= UINT32_MAX)
    return Error{EBADMSG, "malformed user"};
  User user;
  user.uid = static_cast<uid_t>(*uid);
  user.gid = static_cast<gid_t>(*gid);
  user.name = text_or(object, "name", "");
  const auto name = user_name(user.uid);
  if (!name)
    return Error{ENOENT, fmt::format("user {} (uid {}) is unknown on host {}: create the same user "
                                     "there",
                                     user.name, user.uid, own_host)};
  if (*name != user.name)
    return Error{EEXIST, fmt::format("uid {} is {} on host {}, not {}: give users the same uid on "
                                     "all hosts",
                                     user.uid, *name, own_host, user.name)};
  // A remote slice opens no files, so it needs none of the user's further groups.
  return user;
}

Json to_json(const User& user) {
  return Json{{"uid", user.uid}, {"gid", user.gid}, {"groups", user.groups}, {"name", user.name}};
}

}  // namespace xenspan::daemon
