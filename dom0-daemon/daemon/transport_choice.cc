#include "dom0-daemon/daemon/transport_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"

namespace xenspan::daemon {
namespace {

// Why these hosts cannot reach each other by RDMA; empty when they can.
std::string obstacle(const std::vector<HostRecord>& hosts) {
  for (const HostRecord& host : hosts) {
    if (host.encrypt)
      return fmt::format("RDMA does not encrypt, and host {} has encrypt = true: set it to false",
                         host.name);
    if (!host.rdma.usable())
      return fmt::format("host {} cannot use RDMA: {}", host.name, host.rdma.problem);
    if (host.rdma.link != hosts.front().rdma.link)
      return fmt::format(
          "RDMA device {} of host {} is on {}, {} of host {} on {}: name devices of "
          "one network (rdma-device in xenspand.conf)",
          hosts.front().rdma.device, hosts.front().name, hosts.front().rdma.link, host.rdma.device,
          host.name, host.rdma.link);
  }
  return "";
}

}  // namespace

std::optional<TransportWish> transport_wish_from(std::string_view word) {
  if (word == "auto") return TransportWish::kAuto;
  if (word == "tcp") return TransportWish::kTcp;
  if (word == "verbs") return TransportWish::kVerbs;
  return std::nullopt;
}

Result<xenstore::Transport> choose_transport(TransportWish wish,
                                             const std::vector<HostRecord>& hosts,
                                             const char* otherwise) {
  using xenstore::Transport;
  if (hosts.size() < 2) return Transport::kNone;
  if (wish == TransportWish::kTcp) return Transport::kTcp;
  const std::string why_not = obstacle(hosts);
  if (why_not.empty()) return Transport::kVerbs;
  if (wish == TransportWish::kVerbs) return Error{ENODEV, why_not + ", or " + otherwise};
  // Hosts without a device are nothing to tell: most clusters have none.
  if (std::any_of(hosts.begin(), hosts.end(), [](const auto& host) { return host.rdma.usable(); }))
    log::info("pages go over TCP: {}", why_not);
  return Transport::kTcp;
}

}  // namespace xenspan::daemon
