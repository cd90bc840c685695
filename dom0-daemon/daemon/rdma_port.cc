#include "dom0-daemon/daemon/rdma_port.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "config.h"
#include "xenstore-schema/values.h"

namespace xenspan::daemon {
namespace {

using Gid = std::array<unsigned char, 16>;
namespace fs = std::filesystem;

#ifdef HAVE_VERBS
constexpr bool kBuiltWithVerbs = true;
#else
constexpr bool kBuiltWithVerbs = false;
#endif
constexpr std::size_t kMaxName = 70;  // the kernel's 64 and a port
constexpr std::size_t kMaxProblem = 300;

std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Names in a folder, sorted: the order in which libibverbs would not, but the same on every look.
std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator each(folder, error), end; !error && each != end;
       each.increment(error))
    names.push_back(each->path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

// IPv4 addresses are mapped into IPv6, as the kernel does it.
bool gid_of(const std::string& address, Gid& gid) {
  if (inet_pton(AF_INET6, address.c_str(), gid.data()) == 1) return true;
  gid.fill(0);
  gid[10] = gid[11] = 0xff;
  return inet_pton(AF_INET, address.c_str(), gid.data() + 12) == 1;
}

bool has_gid(const fs::path& port, const RdmaWish& wish, const Gid& wanted) {
  for (const std::string& index : names_in(port / "gids")) {
    Gid gid{};
    if (inet_pton(AF_INET6, first_line(port / "gids" / index).c_str(), gid.data()) != 1) continue;
    if (wish.gid_index >= 0 ? index == std::to_string(wish.gid_index) && gid != Gid{}
                            : gid == wanted)
      return true;
  }
  return false;
}

std::string list_text(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

bool is_device_text(const std::string& text) {
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           std::strchr("_-./", c) != nullptr;
  };
  return !text.empty() && text.size() <= kMaxName && std::all_of(text.begin(), text.end(), plain);
}

RdmaPort without(std::string problem) { return {"", "", std::move(problem)}; }

// One port: usable, or not the one that is wanted (nothing said), or wanted but not usable.
RdmaPort look_at(const fs::path& devices, const std::string& device, const std::string& port,
                 const RdmaWish& wish, const Gid& gid) {
  const fs::path folder = devices / device / "ports" / port;
  const bool ethernet = first_line(folder / "link_layer") == "Ethernet";
  const bool active = first_line(folder / "state").ends_with("ACTIVE");
  if (ethernet ? !has_gid(folder, wish, gid) : !active && wish.device.empty()) return {};
  if (!active)
    return without(
        fmt::format("port {} of RDMA device {} is not active: check its cable and "
                    "`rdma link`",
                    port, device));
  return {device + "/" + port, ethernet ? "ethernet" : "infiniband", ""};
}

}  // namespace

Json to_json(const RdmaWish& wish) {
  return Json{{"device", wish.device},
              {"port", wish.port},
              {"gid_index", wish.gid_index},
              {"service_level", wish.service_level},
              {"traffic_class", wish.traffic_class}};
}

RdmaPort find_rdma_port(const RdmaWish& wish, const std::string& address,
                        const std::string& devices) {
  if (!kBuiltWithVerbs)
    return without(
        "its xenspan was built without RDMA: build it with libibverbs-dev and "
        "librdmacm-dev");
  const std::vector<std::string> names = names_in(devices);
  if (names.empty()) return without("it has no RDMA device: load the device's driver");
  if (!wish.device.empty() && std::find(names.begin(), names.end(), wish.device) == names.end())
    return without(
        fmt::format("it has no RDMA device {}: set rdma-device in xenspand.conf to one "
                    "of {}, or leave it out",
                    wish.device, list_text(names)));
  Gid gid{};
  gid_of(address, gid);
  std::string problem;
  for (const std::string& device : names) {
    if (!wish.device.empty() && wish.device != device) continue;
    for (const std::string& port : names_in(fs::path(devices) / device / "ports")) {
      if (wish.port != 0 && port != std::to_string(wish.port)) continue;
      RdmaPort found = look_at(devices, device, port, wish, gid);
      if (found.usable()) return found;
      if (problem.empty()) problem = found.problem;
    }
  }
  if (!problem.empty()) return without(problem);
  return without(
      fmt::format("none of its RDMA devices ({}) has its address {}: set address in "
                  "xenspand.conf to one of the device's network, or rdma-device and "
                  "rdma-gid-index",
                  list_text(names), address));
}

Json to_json(const RdmaPort& port) {
  return Json{{"device", port.device}, {"link", port.link}, {"problem", port.problem}};
}

RdmaPort rdma_port_from(const Json& object) {
  const RdmaPort port{text_or(object, "device", ""), text_or(object, "link", ""), ""};
  if (is_device_text(port.device) && (port.link == "ethernet" || port.link == "infiniband"))
    return port;
  const std::string problem = text_or(object, "problem", "").substr(0, kMaxProblem);
  return without(problem.empty() ? "it announces no RDMA device: see its xenspand's log"
                                 : xenstore::encode_text(problem));
}

}  // namespace xenspan::daemon
