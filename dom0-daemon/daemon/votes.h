// How a domain at its home asks for its members to count: by agreement of those that do
// (dom0-daemon/quorum). Implemented by Leases; what was agreed on comes back as Domain::agreed().
// Threading: the loop's thread. Indices are positions among the domain's hosts.
#pragma once

#include <string>

#include "dom0-daemon/daemon/json_fields.h"

namespace xenspan::daemon {

class Votes {
 public:
  virtual ~Votes() = default;
  // In the newest epoch known here. Never, in a domain that has none.
  virtual bool counts(const std::string& uuid, int index) const = 0;
  // For `create` of a slice that joins, as `quorum`: `epoch`, `members` (bits). Null: no epochs.
  virtual Json standing(const std::string& uuid) const = 0;
  virtual void join(const std::string& uuid, int index) = 0;
  // `ended`: its slice is known to have ended. Otherwise it has to be silent for a while first.
  virtual void leave(const std::string& uuid, int index, bool ended) = 0;
  // Another member is to be the home; home_of() says when it is.
  virtual void give_home(const std::string& uuid, int index) = 0;
  // In the newest epoch known here; -1: the domain has none.
  virtual int home_of(const std::string& uuid) const = 0;
};

}  // namespace xenspan::daemon
