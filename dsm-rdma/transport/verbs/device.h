// The RDMA device of a slice: which one, which port, which address (GID).
//
// On Ethernet (RoCE) a GID stands for an IP address of the port's network interface, so the right
// device, port and GID are those of the address that peers are reached by. On InfiniBand peers are
// reached by the port's LID and any GID will do. Internal to transport/verbs. Any thread; a Device
// owns its context and protection domain.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "dsm-rdma/transport/verbs/handles.h"

namespace xenspan::dsm::verbs {

using GidBytes = std::array<std::uint8_t, 16>;

// The GID of the address a connected socket has here; IPv4 addresses are mapped into IPv6.
Result<GidBytes> local_gid(int socket);

struct DeviceWish {
  std::string name;   // empty: any
  unsigned port = 0;  // 0: any
  int gid_index = -1;
  GidBytes address{};
};

// The entry for `address`: RoCE v2 before v1 and others, the lowest index among equals. -1: none.
int choose_gid(const std::vector<ibv_gid_entry>& entries, const DeviceWish& wish);

struct Device {
  Handle<ibv_context> context;
  Handle<ibv_pd> domain;
  std::string name;
  std::uint8_t port = 1;
  std::uint8_t gid_index = 0;
  GidBytes gid{};
  ibv_port_attr port_attributes{};
  ibv_device_attr limits{};

  // The error says which devices there are and what to set.
  static Result<std::unique_ptr<Device>> open(const DeviceWish& wish);

  bool ethernet() const { return port_attributes.link_layer == IBV_LINK_LAYER_ETHERNET; }
};

}  // namespace xenspan::dsm::verbs
