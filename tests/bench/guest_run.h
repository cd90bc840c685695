// One run of a benchmark guest, from its start to its end. For the benchmark program's one thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace xenspan::bench {

struct Answer {  // what the guest prints itself
  double seconds = 0;
  std::string checksum;
  std::string line;

  // Another member of the line, `name`=NUMBER; 0 when there is none.
  double number(const std::string& name) const;
};

// On the given cores only (empty: the daemon places it).
Result<Answer> run_guest(const std::vector<std::string>& argv, const std::vector<int>& cores);

}  // namespace xenspan::bench
