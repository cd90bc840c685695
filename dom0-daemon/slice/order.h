// The `create` order of xenspand, checked and typed (see control.md).
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/hypervisor/usermode/slice.h"
#include "dom0-daemon/slice/wire.h"

namespace xenspan::slice {

struct Order {
  std::string uuid, name;
  hypervisor::usermode::SliceConfig slice;  // ports still empty
  Wire wire;
  std::string bind;  // address to listen on
  unsigned uid = 0, gid = 0;
  std::vector<unsigned> groups;
  std::string user;
  std::size_t hottest = 16;
  std::vector<int> cores;  // where its own threads run while no vCPU is placed there
  // At the home:
  std::string program, cwd;
  std::vector<std::string> arguments, environment;
  unsigned umask = 022;
  std::vector<int> descriptors;
};

// An error names the member that is missing or wrong.
Result<Order> parse_order(const nlohmann::json& body);

// Parts that the orders of all kinds of domains have.
bool secret_of(const std::string& text, dsm::tcp::Secret& secret);
Status read_wire(const nlohmann::json& body, Wire& wire);

}  // namespace xenspan::slice
