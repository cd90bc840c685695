// When something was done to a running guest, and what the guest `pauses` saw then. Plain values.
#pragma once

#include <string>
#include <vector>

namespace xenspan::bench {

struct Moment {
  double start, end;  // s of the monotonic clock; the guest's is this machine's
};

double seconds_now();

// Of what `pauses` printed: for each moment the longest gap that ended in it, in microseconds; 0
// when none was long enough to be seen.
std::vector<double> longest_gaps(const std::string& output, const std::vector<Moment>& moments);

}  // namespace xenspan::bench
