#include "dsm-rdma/transport/verbs/device.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace xenspan::dsm::verbs {
namespace {

struct FreeList {
  void operator()(ibv_device** list) const { ibv_free_device_list(list); }
};

std::string text_of(const GidBytes& gid) {
  char text[INET6_ADDRSTRLEN] = "?";
  ::inet_ntop(AF_INET6, gid.data(), text, sizeof text);
  return text;
}

std::vector<ibv_gid_entry> gids_of(ibv_context* context) {
  std::vector<ibv_gid_entry> entries(256);
  const ssize_t count = ibv_query_gid_table(context, entries.data(), entries.size(), 0);
  entries.resize(count < 0 ? 0 : static_cast<std::size_t>(count));
  return entries;
}

// Looks for what the wish names on this device; false: it is not here.
bool find(Device& device, const DeviceWish& wish) {
  const std::vector<ibv_gid_entry> entries = gids_of(device.context.get());
  if (const int found = choose_gid(entries, wish); found >= 0) {
    const ibv_gid_entry& entry = entries[static_cast<std::size_t>(found)];
    device.port = static_cast<std::uint8_t>(entry.port_num);
    device.gid_index = static_cast<std::uint8_t>(entry.gid_index);
    std::memcpy(device.gid.data(), entry.gid.raw, device.gid.size());
    return ibv_query_port(device.context.get(), device.port, &device.port_attributes) == 0;
  }
  // InfiniBand: the address is that of IPoIB, which no GID table holds.
  for (unsigned port = 1; port <= device.limits.phys_port_cnt; ++port) {
    if (wish.port != 0 && wish.port != port) continue;
    device.port = static_cast<std::uint8_t>(port);
    if (ibv_query_port(device.context.get(), device.port, &device.port_attributes) != 0) continue;
    if (device.port_attributes.link_layer != IBV_LINK_LAYER_INFINIBAND ||
        device.port_attributes.state != IBV_PORT_ACTIVE)
      continue;
    ibv_gid gid{};
    const int index = wish.gid_index < 0 ? 0 : wish.gid_index;
    if (ibv_query_gid(device.context.get(), device.port, index, &gid) != 0) continue;
    device.gid_index = static_cast<std::uint8_t>(index);
    std::memcpy(device.gid.data(), gid.raw, device.gid.size());
    return true;
  }
  return false;
}

Status prepare(Device& device) {
  if (device.port_attributes.state != IBV_PORT_ACTIVE) {
    return Error{ENETDOWN, fmt::format("port {} of RDMA device {} is not active: check its cable "
                                       "and `rdma link`",
                                       device.port, device.name)};
  }
  device.domain.reset(ibv_alloc_pd(device.context.get()));
  if (!device.domain) {
    return system_error(errno, "cannot use RDMA device " + device.name,
                        "check the rights of /dev/infiniband");
  }
  return {};
}

}  // namespace

Result<GidBytes> local_gid(int socket) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &bytes) != 0)
    return system_error(errno, "cannot tell the address of this host's end of a connection");
  GidBytes gid{};
  if (address.ss_family == AF_INET6) {
    std::memcpy(gid.data(), &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, gid.size());
  } else {
    gid[10] = gid[11] = 0xff;
    std::memcpy(gid.data() + 12, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, 4);
  }
  return gid;
}

int choose_gid(const std::vector<ibv_gid_entry>& entries, const DeviceWish& wish) {
  int best = -1;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const ibv_gid_entry& entry = entries[i];
    if (wish.port != 0 && entry.port_num != wish.port) continue;
    if (entry.gid_index > 255) continue;
    if (wish.gid_index >= 0) {
      if (entry.gid_index == static_cast<std::uint32_t>(wish.gid_index)) return static_cast<int>(i);
      continue;
    }
    if (std::memcmp(entry.gid.raw, wish.address.data(), wish.address.size()) != 0) continue;
    const bool routable = entry.gid_type == IBV_GID_TYPE_ROCE_V2;
    if (best < 0 ||
        (routable && entries[static_cast<std::size_t>(best)].gid_type != IBV_GID_TYPE_ROCE_V2))
      best = static_cast<int>(i);
  }
  return best;
}

Result<std::unique_ptr<Device>> Device::open(const DeviceWish& wish) {
  int count = 0;
  const std::unique_ptr<ibv_device*, FreeList> list(ibv_get_device_list(&count));
  std::string seen;
  Error closed;
  for (int i = 0; list && i < count; ++i) {
    auto device = std::make_unique<Device>();
    device->name = ibv_get_device_name(list.get()[i]);
    seen += (seen.empty() ? "" : ", ") + device->name;
    if (!wish.name.empty() && wish.name != device->name) continue;
    device->context.reset(ibv_open_device(list.get()[i]));
    if (!device->context || ibv_query_device(device->context.get(), &device->limits) != 0) {
      closed = system_error(errno, "cannot open RDMA device " + device->name,
                            "let users read and write /dev/infiniband/uverbs*");
      continue;
    }
    if (!find(*device, wish)) continue;
    if (Status status = prepare(*device); !status) return status.error();
    return device;
  }
  if (seen.empty()) {
    return Error{ENODEV, "this host has no RDMA device: load its driver, or use --transport tcp"};
  }
  if (closed.code != 0) return closed;
  return Error{
      ENODEV,
      fmt::format("no RDMA device fits {} with address {}: there is {}. Name device, port "
                  "and GID index, or give the daemon an address of the device's network",
                  wish.name.empty() ? "any device" : wish.name, text_of(wish.address), seen)};
}

}  // namespace xenspan::dsm::verbs
