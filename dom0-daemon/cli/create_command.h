// `xenspan create FILE`: starts the domain that a file describes; it stays when the command ends.
// One thread.
#pragma once

#include <string>

#include "dom0-daemon/cli/client.h"

namespace xenspan::cli {

// `console`: stay with the program and its terminal, as `run`. Returns the exit status.
int create_domain(const DaemonChoice& daemon, const std::string& file, bool console);

}  // namespace xenspan::cli
