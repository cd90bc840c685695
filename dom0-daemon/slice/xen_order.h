// The `create` order of xenspand for a slice under Xen, checked and typed (see control.md).
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/hypervisor/xen/types.h"
#include "dom0-daemon/slice/wire.h"
#include "dsm-rdma/transport/tcp/secure_stream.h"

namespace xenspan::slice {

struct XenOrder {
  struct Vcpu {
    dsm::HostId host = 0;
    int cpu = -1;  // that it is pinned to; -1: none
  };
  std::string uuid, name;
  hypervisor::xen::DomainId domain = 0;  // of this host
  dsm::HostId self = 0;
  std::vector<std::string> hosts, addresses;  // home first; an empty name: nobody's now
  std::vector<std::uint32_t> incarnations;    // dsm::tcp::Peer
  unsigned first_hosts = 0;  // how many the domain began with, for a slice that joins; 0: it began
  std::vector<Vcpu> vcpus;
  dsm::Gfn pages = 0;  // gfns 0 .. pages-1 are kept coherent
  dsm::tcp::Secret secret{};
  bool encrypt = false;
  Wire wire;
  std::string bind;  // address to listen on
  unsigned hold_us = 0;
  std::size_t hottest = 16;

  bool home() const { return self == 0; }
  bool joins() const { return first_hosts != 0; }
};

// An error names the member that is missing or wrong.
Result<XenOrder> parse_xen_order(const nlohmann::json& body);

}  // namespace xenspan::slice
