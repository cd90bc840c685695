// `xenspan add-host`, `drain` and `remove-host`: asks for the change and waits until it has
// happened; on a terminal one line tells how far it is. One thread.
#pragma once

#include <string>

#include "dom0-daemon/cli/client.h"

namespace xenspan::cli {

struct MemberOptions {
  std::string domain, host;
};

// `request`: add, drain or remove. The exit status.
int change_member(const DaemonChoice& daemon, const std::string& request,
                  const MemberOptions& options);

}  // namespace xenspan::cli
