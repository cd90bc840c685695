// `xenspan run` and `xenspan create`: asks the daemon to start a program as a domain and stays with
// it.
//
// Signals that come meanwhile are passed on. The result is the exit status for the shell. One
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dom0-daemon/cli/client.h"
#include "dsm-rdma/types.h"

namespace xenspan::cli {

inline constexpr int kOwnFailure = 125;

struct RunOptions {
  std::string name;
  int vcpus = 0;             // 0: the daemon's default
  std::uint64_t memory = 0;  // 0: the daemon's default
  std::vector<std::string> hosts;
  unsigned prefetch = dsm::kMostPrefetch;
  std::vector<std::string> without;  // features (dsm-rdma/features.h)
  std::string transport;             // "": the daemon's default
  std::string policy;                // "": spread
  bool stats = false;
  std::string stats_file;  // "": standard error
  std::vector<std::string> command;
  std::vector<std::string> environment;  // NAME=VALUE, over what is inherited
  std::string directory;                 // "": here
  std::vector<int> fd_numbers;           // in the program
  std::vector<int> fds;                  // here, in the same order
  bool detach = false;                   // return once the program runs
};

// Returns the exit status; errors are written to standard error. `started` gets the domain's uuid,
// name and hosts.
int run_domain(const DaemonChoice& daemon, const RunOptions& options, Json* started = nullptr);

}  // namespace xenspan::cli
