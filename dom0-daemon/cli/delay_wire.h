// A wire with a length: joins the hosts of a test bed by Ethernet frames that arrive a while after
// they were sent, and no faster than a given rate. For kernels without netem.
//
// Each host's eth0 is then a TAP device whose other end is read here: a switch that learns
// addresses and keeps each frame until its time has come. One process a bed, one thread, of
// real-time priority (a wire does not wait for a processor). Needs root.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace xenspan::cli {

// "50us", "1.5ms", "2s" -> nanoseconds; "10gbit", "100mbit" -> bits per second: the units of
// tc-netem(8). The error names the text.
Result<std::uint64_t> parse_delay(const std::string& text);
Result<std::uint64_t> parse_rate(const std::string& text);

struct DelayWire {
  std::vector<std::string> spaces;  // network namespaces of /run/netns, one a host
  std::uint64_t delay_ns = 0;       // one way
  std::uint64_t rate = 0;           // bits per second that a host sends; 0: no limit
};

// Makes eth0 in each namespace and carries frames until SIGTERM or SIGINT. Creates the file `ready`
// once the devices stand.
Status run_delay_wire(const DelayWire& wire, const std::string& ready);

}  // namespace xenspan::cli
