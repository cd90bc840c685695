// `xenspan testbed`: several hosts on this machine, each a network namespace with its own xenspand
// and xenstored.
//
//   namespaces xs-a, xs-b, ... with one interface eth0 each (10.88.0.1, 10.88.0.2, ... inside them
//   only), joined by a bridge in the namespace xs-bridge, or by a process where there is a delay
//   and the kernel has no netem; nothing in the machine's own network changes. Host number i has
//   core i.
//
// All files are in /run/xenspan/testbed-PREFIX. Ends only processes it started: each is known by
// process id and start time. One thread; needs root and iproute2.
#pragma once

#include <string>

namespace xenspan::cli {

struct TestbedOptions {
  int hosts = 2;
  std::string delay;     // "50us"; one way, on each host's interface
  std::string rate;      // "10gbit"
  bool encrypt = false;  // guest memory on the wire, too
  std::string prefix = "xs";
};

// Each returns the exit status.
int testbed_up(const TestbedOptions& options);
int testbed_down(const std::string& prefix);
// The wire of a bed with a delay, where the kernel has no netem (delay_wire.h): runs until a
// signal.
int testbed_wire(const TestbedOptions& options);
int testbed_status(const std::string& prefix);

}  // namespace xenspan::cli
