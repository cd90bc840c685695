// The modelled network: when a message that is handed to it now has arrived.
//
// Every host has one link into a switch that never blocks. A message takes the latency (with
// jitter: messages overtake each other), and its bytes occupy the sender's link out and the
// receiver's link in, one after the other; it passes through the switch while it is still being
// sent (cut-through). What sending and receiving cost a processor is charged by the caller. Times
// in nanoseconds. Same seed, same calls: same answers. One thread's.
#pragma once

#include <cstdint>
#include <vector>

#include "dsm-rdma/scale/random.h"
#include "dsm-rdma/types.h"

namespace xenspan::dsm::scale {

using Time = std::uint64_t;

// The defaults are what was measured for TCP between two network namespaces of one machine, nobody
// asleep (a round trip of 64 bytes there and 4160 back: 7.6 to 12.7 us), and for userfaultfd.
struct Costs {
  Time latency_ns = 2500;   // one way, empty link
  double gbit = 32;         // of a host's link, each direction
  Time send_ns = 1200;      // processor time to send one message ..
  Time receive_ns = 1200;   // .. and to receive one
  Time fault_ns = 3600;     // a vCPU's way into the engine and back, mapping the page included
  Time withdraw_ns = 1000;  // a page out of the guest's mapping
  Time protect_ns = 800;    // its mapping made read-only
  double jitter = 0.1;      // of the latency, at most, added by lot

  Time on_link(std::size_t bytes) const {
    return static_cast<Time>(static_cast<double>(bytes) * 8 / gbit);
  }
  // 64 bytes there, a page back, between two hosts with nothing else to do: the unit of latencies.
  Time round_trip_ns() const;
};

class Network {
 public:
  Network(const Costs& costs, unsigned hosts, std::uint64_t seed);
  Time arrival(Time now, HostId from, HostId to, std::size_t bytes);

 private:
  Costs costs_;
  Random random_;
  std::vector<Time> out_free_, in_free_;
};

}  // namespace xenspan::dsm::scale
