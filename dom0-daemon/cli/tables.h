// `xenspan list`, `hosts` and other commands of one question: what the daemon tells, as text for
// people or JSON for programs. One thread.
#pragma once

#include <string>
#include <vector>

#include "dom0-daemon/cli/client.h"

namespace xenspan::cli {

// Columns as wide as their widest cell, two spaces between, the first row is the heading; columns
// whose heading begins with '>' are aligned to the right.
std::string table(const std::vector<std::vector<std::string>>& rows);

struct ListOptions {
  bool all = false;    // also domains that have ended
  bool vcpus = false;  // a second table, of their vCPUs
  bool json = false;
};

// Each returns the exit status.
int list_domains(const DaemonChoice& daemon, const ListOptions& options);
int list_hosts(const DaemonChoice& daemon, bool json);
int destroy_domain(const DaemonChoice& daemon, const std::string& domain);
int show_stats(const DaemonChoice& daemon, const std::string& domain);

struct MigrateOptions {
  std::string domain, host;
  unsigned vcpu = 0;
  bool alone = false;  // only to a core that no other vCPU uses
};
int migrate_vcpu(const DaemonChoice& daemon, const MigrateOptions& options);

}  // namespace xenspan::cli
