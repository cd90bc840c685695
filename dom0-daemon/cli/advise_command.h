// `xenspan advise`: fetches or reads a domain's statistics and shows what they advise. One thread.
#pragma once

#include <string>

#include "dom0-daemon/cli/client.h"

namespace xenspan::cli {

struct AdviseOptions {
  std::string domain;  // a running one, or
  std::string file;    // what `xenspan run --stats=FILE` wrote
  bool json = false;
};

// The exit status.
int advise(const DaemonChoice& daemon, const AdviseOptions& options);

}  // namespace xenspan::cli
