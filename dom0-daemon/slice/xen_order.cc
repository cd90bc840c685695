#include "dom0-daemon/slice/xen_order.h"

#include <cerrno>

#include "dom0-daemon/slice/order.h"

namespace xenspan::slice {
namespace {

using nlohmann::json;

constexpr std::size_t kMostVcpus = 64;              // one word says where they are
constexpr dsm::Gfn kMostPages = dsm::Gfn{3} << 18;  // 3 GiB: above are holes for devices

Status read_hosts(const json& body, XenOrder& order) {
  const auto self = body.at("self").get<unsigned>();
  for (const json& host : body.at("hosts")) {
    order.hosts.push_back(host.at("name").get<std::string>());
    order.addresses.push_back(host.at("address").get<std::string>());
    order.incarnations.push_back(host.value("incarnation", 0U));
  }
  if (order.hosts.empty() || order.hosts.size() > dsm::kMaxHosts || self >= order.hosts.size())
    return Error{EPROTO, "`self` or `hosts` is out of range: a domain has 1 to 64 hosts"};
  order.self = static_cast<dsm::HostId>(self);
  order.first_hosts = body.value("first_hosts", 0U);
  if (order.first_hosts > order.hosts.size() || (order.first_hosts != 0 && self == 0))
    return Error{EPROTO, "`first_hosts` is more than there are in `hosts`, or the home is to join"};
  for (const json& vcpu : body.at("vcpus")) {
    const auto host = vcpu.at("host").get<unsigned>();
    if (host >= order.hosts.size())
      return Error{EPROTO, "`vcpus` names a host that is not in `hosts`"};
    order.vcpus.push_back({static_cast<dsm::HostId>(host), vcpu.at("core").get<int>()});
  }
  if (order.vcpus.empty() || order.vcpus.size() > kMostVcpus || order.vcpus[0].host != 0)
    return Error{EPROTO, "`vcpus` needs 1 to 64 entries, the first on the home"};
  return {};
}

}  // namespace

Result<XenOrder> parse_xen_order(const json& body) try {
  XenOrder order;
  order.uuid = body.at("uuid").get<std::string>();
  order.name = body.value("name", order.uuid);
  order.bind = body.at("bind").get<std::string>();
  if (Status status = read_hosts(body, order); !status) return status.error();
  const json& xen = body.at("xen");
  order.domain = xen.at("domain").get<unsigned>();
  order.pages = xen.at("pages").get<std::uint64_t>();
  order.hold_us = xen.value("hold_us", 0U);
  if (order.domain == 0 || order.domain >= 0x7ff0)
    return Error{EPROTO, "`domain` is not the number of a guest"};
  if (order.pages == 0 || order.pages > kMostPages)
    return Error{EPROTO, "`pages` is out of range: a spanning domain has 3 GiB of memory at most"};
  if (!secret_of(body.at("secret").get<std::string>(), order.secret))
    return Error{EPROTO, "`secret` is not 64 hexadecimal digits"};
  order.encrypt = body.value("encrypt", false);
  order.hottest = body.value("stats_hottest", std::size_t{16});
  if (Status status = read_wire(body, order.wire); !status) return status.error();
  return order;
} catch (const json::exception& error) {
  return Error{EPROTO, std::string("xenspand's create order is wrong: ") + error.what()};
}

}  // namespace xenspan::slice
