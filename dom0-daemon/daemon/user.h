// The user on whose behalf a domain runs: taken from the kernel (SO_PEERCRED), never from what a
// client says. Threading: the loop's thread (the name service may be asked).
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/daemon/json_fields.h"

namespace xenspan::daemon {

struct User {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
  std::string name;  // "uid 1234" when the machine has no name for it

  // May this user stop or examine what `owner` started?
  bool may_manage(uid_t owner) const { return uid == 0 || uid == owner; }
};

// Who is at the other end of a connected Unix socket.
Result<User> peer_user(int socket);
// The user a peer's message names, checked against this machine's users: uid and name must belong
// together.
Result<User> user_from(const Json& object, const std::string& own_host);
Json to_json(const User& user);

}  // namespace xenspan::daemon
