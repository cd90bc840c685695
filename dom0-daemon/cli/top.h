// `xenspan top`: what the domains are doing, once a second, as xentop shows it. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "dom0-daemon/cli/client.h"

namespace xenspan::cli {

struct TopOptions {
  bool batch = false;  // print tables instead of taking the screen
  int iterations = 0;  // 0: until ended
  double delay = 1.0;  // seconds between two looks
};

// The counters of one domain on one host, at one moment.
struct TopSample {
  double when = 0;  // seconds, any origin
  Json counters;
};
// Samples by "uuid host".
using TopSamples = std::map<std::string, TopSample>;

// The lines of one look: a heading, then a line a domain and a line for each of its hosts. `before`
// holds the samples of the look before and gets those of this one; rates are zero when there is
// none.
std::vector<std::string> top_lines(const Json& domains, double now, TopSamples& before);

int show_top(const DaemonChoice& daemon, const TopOptions& options);

}  // namespace xenspan::cli
