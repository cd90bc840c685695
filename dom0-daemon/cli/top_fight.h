// The line of `xenspan top` that says which page a domain's vCPUs fought over most since the look
// before, and who they were. Made of two answers of `xenspan stats`. Threading: pure functions.
#pragma once

#include <map>
#include <string>

#include "dom0-daemon/daemon/json_fields.h"

namespace xenspan::cli {

using daemon::Json;

// Faults of a domain's vCPUs on the pages they fight over, at one moment.
struct FightSample {
  double when = 0;                                                         // seconds, any origin
  std::map<std::uint64_t, std::map<std::uint64_t, std::uint64_t>> faults;  // by gfn and vCPU
};
FightSample fight_sample_of(const Json& stats, double now);

// "top fight in NAME: page 1a2b3 (counters+0x40): vCPU 1 (b) 523/s, vCPU 0 (a) 488/s"; "" when
// nobody fights.
std::string fight_line(const std::string& name, const Json& stats, const FightSample& now,
                       const FightSample& before);

}  // namespace xenspan::cli
