// What the guest `pieces` printed: how many pieces were done when, and by whom. Plain values.
#pragma once

#include <vector>

#include "base/result.h"
#include "tests/bench/process.h"

namespace xenspan::bench {

struct PiecesOutput {
  struct Point {
    double time, pieces;  // s of the monotonic clock; the sum so far
  };
  std::vector<Point> points;
  std::vector<double> by;  // pieces of each thread
};

// An error when the guest failed, or a piece was lost or is wrong.
Result<PiecesOutput> pieces_output(const Process::End& end);

}  // namespace xenspan::bench
