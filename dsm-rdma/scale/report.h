// The simulator's results as a table for people, as JSON for programs (one object a line), and as a
// drawing. Pure functions; text is returned.
#pragma once

#include <string>
#include <vector>

#include "dsm-rdma/scale/memory.h"
#include "dsm-rdma/scale/simulation.h"

namespace xenspan::dsm::scale {

struct Result {
  Options options;
  Figures figures;
  Memory memory;
};

std::string table_of(const std::vector<Result>& results);
std::string json_of(const Result& result);
// An SVG picture: messages per fault, latency in round trips and directory memory over hosts, a
// line for each pattern. Needs nothing to be seen but a browser.
std::string plot_of(const std::vector<Result>& results);

}  // namespace xenspan::dsm::scale
