// Which RDMA device a host's slices would use: looked up in /sys/class/infiniband, as the kernel
// shows it, so that the daemon needs neither the device itself nor a library for it.
//
// The rules are those by which a slice opens its device (dsm-rdma/transport/verbs/device.h): on
// Ethernet (RoCE) the port that has the host's address among its GIDs, on InfiniBand the first
// active port, unless the configuration names one. Threading: plain functions on files.
#pragma once

#include <string>

#include "dom0-daemon/daemon/json_fields.h"

namespace xenspan::daemon {

// What an administrator can set; each of them may be left open.
struct RdmaWish {
  std::string device;  // "mlx5_0"; empty: by address
  unsigned port = 0;   // 0: by address
  int gid_index = -1;  // -1: by address
  unsigned service_level = 0;
  unsigned traffic_class = 0;
};
// As the `rdma` member of a slice's `create` order.
Json to_json(const RdmaWish& wish);

// What a host announces. Either `device` and `link`, or `problem`.
struct RdmaPort {
  std::string device;   // "mlx5_0/1": device and port
  std::string link;     // "ethernet" or "infiniband": they do not mix
  std::string problem;  // why there is none, with the remedy

  bool usable() const { return !device.empty(); }
  friend bool operator==(const RdmaPort&, const RdmaPort&) = default;
};

inline constexpr const char* kRdmaDevices = "/sys/class/infiniband";

// `address` is the one by which peers reach this host, numeric.
RdmaPort find_rdma_port(const RdmaWish& wish, const std::string& address,
                        const std::string& devices = kRdmaDevices);

Json to_json(const RdmaPort& port);
// From a peer: what is not of that form reads as no device.
RdmaPort rdma_port_from(const Json& object);

}  // namespace xenspan::daemon
