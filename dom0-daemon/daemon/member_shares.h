// Which vCPUs a host gets that joins a running domain, and where the vCPUs of one go that leaves.
//
// Shares are those of placement.h, in proportion to cores. One move at a time, so that what has
// happened meanwhile (somebody migrates a vCPU, a policy does) counts. Pure functions; plain
// values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dom0-daemon/daemon/host_record.h"

namespace xenspan::daemon {

// The next vCPU that should go to `host`; nothing when it has its share. `on`: the host of each
// vCPU. `hosts`: the active members, `host` among them. It comes from the host that has most beyond
// its own share, the highest number first: vCPU 0, the first thread's, stays longest.
std::optional<std::uint32_t> next_for(const std::string& host, const std::vector<std::string>& on,
                                      const std::vector<HostRecord>& hosts);

// Where the next vCPU of a host that leaves goes: to whom has the fewest for its cores. `hosts`:
// the active members without the one that leaves, at least one.
std::string heir_of(const std::vector<std::string>& on, const std::vector<HostRecord>& hosts);

}  // namespace xenspan::daemon
