#include "dom0-daemon/slice/order.h"

#include <cerrno>

#include "dom0-daemon/slice/descriptors.h"
#include "dsm-rdma/features.h"

namespace xenspan::slice {
namespace {

using nlohmann::json;

Status read_slice(const json& body, Order& order) {
  auto& slice = order.slice;
  const auto self = body.at("self").get<unsigned>();
  for (const json& host : body.at("hosts")) {
    slice.hosts.push_back(host.at("name").get<std::string>());
    slice.addresses.push_back(host.at("address").get<std::string>());
    slice.incarnations.push_back(host.value("incarnation", 0U));
  }
  if (slice.hosts.empty() || slice.hosts.size() > dsm::kMaxHosts || self >= slice.hosts.size())
    return Error{EPROTO, "`self` or `hosts` is out of range: a domain has 1 to 64 hosts"};
  slice.self = static_cast<dsm::HostId>(self);
  const auto home = body.value("home", 0U);
  const auto engine_home = body.value("engine_home", static_cast<int>(home));
  if (home >= slice.hosts.size() || engine_home < -1 ||
      engine_home >= static_cast<int>(slice.hosts.size()))
    return Error{EPROTO, "`home` or `engine_home` is not in `hosts`"};
  slice.home = static_cast<dsm::HostId>(home);
  slice.engine_home = engine_home < 0 ? dsm::kNoHost : static_cast<dsm::HostId>(engine_home);
  slice.heir = body.value("heir", false);
  for (const json& vcpu : body.at("vcpus")) {
    const auto host = vcpu.at("host").get<unsigned>();
    if (host >= slice.hosts.size())
      return Error{EPROTO, "`vcpus` names a host that is not in `hosts`"};
    slice.vcpus.push_back({static_cast<dsm::HostId>(host), vcpu.at("core").get<int>()});
  }
  slice.first_hosts = body.value("first_hosts", 0U);
  if (slice.first_hosts > slice.hosts.size() || (slice.first_hosts != 0 && self == home))
    return Error{EPROTO, "`first_hosts` is more than there are in `hosts`, or the home is to join"};
  // Later vCPU 0 may be anywhere.
  const bool began = slice.first_hosts != 0;
  if (slice.vcpus.empty() || slice.vcpus.size() > 1024 || (!began && slice.vcpus[0].host != home))
    return Error{EPROTO, "`vcpus` needs 1 to 1024 entries, the first on the home"};
  slice.epoch = body.value("epoch", slice.epoch);
  order.cores = body.value("cores", std::vector<int>{});
  slice.memory = body.at("memory").get<std::uint64_t>();
  if (!secret_of(body.at("secret").get<std::string>(), slice.secret))
    return Error{EPROTO, "`secret` is not 64 hexadecimal digits"};
  slice.encrypt = body.value("encrypt", false);
  slice.prefetch = body.value("prefetch", dsm::kMostPrefetch);
  const auto without = dsm::features_of(body.value("without", std::vector<std::string>{}));
  if (!without) return Error{EPROTO, "`without`: " + without.error().message};
  slice.without = *without;
  slice.directory = body.at("rundir").get<std::string>();
  slice.descriptor_limit = kGuestDescriptors;
  return {};
}

}  // namespace

bool secret_of(const std::string& text, dsm::tcp::Secret& secret) {
  if (text.size() != 2 * secret.size()) return false;
  for (std::size_t i = 0; i < secret.size(); ++i) {
    const auto digit = [](char c) {
      return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    };
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    secret[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return true;
}

constexpr unsigned kMostDeadMs = 3'600'000;

Status read_wire(const json& body, Wire& wire) {
  wire.transport = body.value("transport", wire.transport);
  if (wire.transport != "none" && wire.transport != "tcp" && wire.transport != "verbs")
    return Error{EPROTO, "`transport` is neither none, tcp nor verbs"};
  wire.dead_after_ms = std::clamp(body.value("lost_after", 0U), wire.dead_after_ms, kMostDeadMs);
  if (!wire.verbs() || !body.contains("rdma")) return {};
  const json& rdma = body.at("rdma");
  wire.device = rdma.value("device", wire.device);
  wire.port = rdma.value("port", wire.port);
  wire.gid_index = rdma.value("gid_index", wire.gid_index);
  wire.service_level = rdma.value("service_level", wire.service_level);
  wire.traffic_class = rdma.value("traffic_class", wire.traffic_class);
  return {};
}

Result<Order> parse_order(const json& body) try {
  Order order;
  order.uuid = body.at("uuid").get<std::string>();
  order.name = body.value("name", order.uuid);
  order.bind = body.at("bind").get<std::string>();
  const json& user = body.at("user");
  order.uid = user.at("uid").get<unsigned>();
  order.gid = user.at("gid").get<unsigned>();
  order.groups = user.value("groups", std::vector<unsigned>{});
  order.user = user.value("name", std::string());
  order.hottest = body.value("stats_hottest", std::size_t{16});
  if (Status status = read_slice(body, order); !status) return status.error();
  if (Status status = read_wire(body, order.wire); !status) return status.error();
  if (order.slice.self != order.slice.home) return order;
  order.program = body.at("program").get<std::string>();
  order.arguments = body.at("argv").get<std::vector<std::string>>();
  order.environment = body.at("env").get<std::vector<std::string>>();
  order.cwd = order.slice.cwd = body.at("cwd").get<std::string>();
  order.umask = body.value("umask", 022U);
  order.descriptors = body.value("fds", std::vector<int>{});
  return order;
} catch (const json::exception& error) {
  return Error{EPROTO, std::string("xenspand's create order is wrong: ") + error.what()};
}

}  // namespace xenspan::slice
