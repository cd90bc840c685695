#include "tests/bench/moments.h"

#include <time.h>

#include <algorithm>
#include <sstream>

namespace xenspan::bench {
namespace {

constexpr double kWithin = 0.02;  // s after the command that a pause may end

}  // namespace

double seconds_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

std::vector<double> longest_gaps(const std::string& output, const std::vector<Moment>& moments) {
  std::vector<double> longest(moments.size(), 0);
  std::istringstream lines(output);
  double end = 0, length = 0;
  while (lines >> end >> length)
    for (std::size_t i = 0; i < moments.size(); i++)
      if (end >= moments[i].start && end <= moments[i].end + kWithin)
        longest[i] = std::max(longest[i], length * 1e6);
  return longest;
}

}  // namespace xenspan::bench
