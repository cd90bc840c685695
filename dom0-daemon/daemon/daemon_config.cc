#include "dom0-daemon/daemon/daemon_config.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>

#include "dom0-daemon/daemon/names.h"
#include "dom0-daemon/daemon/size_text.h"

namespace xenspan::daemon {
namespace {

Error invalid(std::string message) { return Error{EINVAL, std::move(message)}; }

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

template <typename Number>
std::optional<Number> whole_number(std::string_view text) {
  Number number{};
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || rest != text.data() + text.size()) return std::nullopt;
  return number;
}

bool is_address(const std::string& text) {
  unsigned char raw[16];
  return inet_pton(AF_INET, text.c_str(), raw) == 1 || inet_pton(AF_INET6, text.c_str(), raw) == 1;
}

Status set_name(Config& config, std::string_view value) {
  if (!is_host_name(value))
    return invalid(
        fmt::format("name \"{}\" is not a host name: use letters, digits, '-' and '_', "
                    "at most 63",
                    value));
  config.name = value;
  return {};
}

Status set_address(Config& config, std::string_view value) {
  if (!is_address(std::string(value)))
    return invalid(
        fmt::format("address \"{}\" is not an IP address: write it in numbers, for "
                    "example 192.0.2.7",
                    value));
  config.address = value;
  return {};
}

Status set_port(Config& config, std::string_view value) {
  const auto port = whole_number<std::uint16_t>(value);
  if (!port || *port == 0)
    return invalid(fmt::format("port \"{}\" is not a port: use a number from 1 to 65535", value));
  config.port = *port;
  return {};
}

Status set_cpus(Config& config, std::string_view value) {
  auto cpus = parse_cpu_list(value);
  if (!cpus) return cpus.error();
  config.cpus = std::move(*cpus);
  return {};
}

Status set_memory(Config& config, std::string_view value) {
  auto bytes = parse_size(value, "memory");
  if (!bytes) return bytes.error();
  if (*bytes == 0) return invalid("memory is 0: give a size, for example 16G, or leave it out");
  config.memory = *bytes;
  return {};
}

Status set_path(std::string& path, std::string_view key, std::string_view value) {
  if (value.empty() || value.front() != '/')
    return invalid(fmt::format("{} \"{}\" is not an absolute path: start it with /", key, value));
  path = value;
  return {};
}

Status set_flag(bool& flag, std::string_view key, std::string_view value) {
  if (value != "true" && value != "false")
    return invalid(fmt::format("{} \"{}\": write true or false", key, value));
  flag = value == "true";
  return {};
}

Status set_transport(Config& config, std::string_view value) {
  const auto wish = transport_wish_from(value);
  if (!wish) return invalid(fmt::format("transport \"{}\": write {}", value, kTransportWords));
  config.transport = *wish;
  return {};
}

// A number of the RDMA device's; `most` as libibverbs has it.
template <typename Number>
Status set_rdma(Number& number, std::string_view key, std::string_view value, Number least,
                Number most) {
  const auto read = whole_number<Number>(value);
  if (!read || *read < least || *read > most)
    return invalid(fmt::format("{} \"{}\": use a number from {} to {}", key, value, least, most));
  number = *read;
  return {};
}

Status set_rdma_device(Config& config, std::string_view value) {
  if (!is_host_name(value))
    return invalid(
        fmt::format("rdma-device \"{}\" is not a device's name: `rdma link` shows them, "
                    "for example mlx5_0",
                    value));
  config.rdma.device = value;
  return {};
}

Status set_peers(Config& config, std::string_view value) {
  while (!value.empty()) {
    const auto comma = std::min(value.find(','), value.size());
    auto peer = parse_peer(trim(value.substr(0, comma)));
    if (!peer) return peer.error();
    config.peers.push_back(std::move(*peer));
    value.remove_prefix(std::min(comma + 1, value.size()));
  }
  return {};
}

Status set_seconds(std::chrono::milliseconds& limit, std::string_view key, std::string_view value) {
  const auto seconds = whole_number<unsigned>(value);
  if (!seconds || *seconds < 1 || *seconds > 3600)
    return invalid(fmt::format("{} \"{}\": use a number of seconds from 1 to 3600", key, value));
  limit = std::chrono::seconds(*seconds);
  return {};
}

Status set_log(Config& config, std::string_view value) {
  using log::Level;
  constexpr std::pair<std::string_view, Level> kLevels[] = {{"error", Level::kError},
                                                            {"warning", Level::kWarning},
                                                            {"info", Level::kInfo},
                                                            {"debug", Level::kDebug}};
  for (const auto& [word, level] : kLevels) {
    if (value != word) continue;
    config.log_level = level;
    return {};
  }
  return invalid(fmt::format("log \"{}\": write error, warning, info or debug", value));
}

}  // namespace

std::vector<int> usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

const std::vector<ConfigKey>& config_keys() {
  static const std::vector<ConfigKey> keys = {
      {"name", "NAME", "this host's name in the cluster (default: the short host name)"},
      {"address", "ADDRESS", "numeric address where peers reach this host (default: 127.0.0.1)"},
      {"port", "PORT", "TCP port for peers (default: 8117)"},
      {"cpus", "LIST", "cores that may run vCPUs, as 0-3,6 (default: all)"},
      {"memory", "SIZE", "memory that domains may use here (default: all)"},
      {"rundir", "DIR", "run-time files go to DIR/NAME (default: /run/xenspan)"},
      {"key", "FILE", "cluster key (default: cluster.key beside xenspand.conf)"},
      {"encrypt", "true|false", "also encrypt guest memory between hosts (default: false)"},
      {"frame-blocks", "true|false",
       "let the kernel give guests' memory by 32 KiB where it can (default: true)"},
      {"transport", "tcp|verbs|auto",
       "what pages of domains started here travel by (default: auto: RDMA where all hosts have "
       "it)"},
      {"rdma-device", "NAME", "RDMA device (default: the one that has this host's address)"},
      {"rdma-port", "N", "its port (default: the one that has this host's address)"},
      {"rdma-gid-index", "N", "index of its GID (default: that of this host's address)"},
      {"rdma-service-level", "0-15", "InfiniBand service level or RoCE priority (default: 0)"},
      {"rdma-traffic-class", "0-255", "traffic class of RoCE v2 packets (default: 0)"},
      {"domains", "DIR", "folder of declared Xen domains (default: domains beside xenspand.conf)"},
      {"slice", "FILE", "the worker program xenspan-slice"},
      {"socket", "FILE", "control socket (default: DIR/NAME/control)"},
      {"peer", "NAME=ADDRESS[:PORT]", "another host; may be repeated, or a list with commas"},
      {"lost-after", "SECONDS", "a silent peer is lost after this (default: 3)"},
      {"start-within", "SECONDS",
       "a domain whose slices are not ready after this fails (default: 30)"},
      {"log", "LEVEL", "error, warning, info or debug (default: info)"},
  };
  return keys;
}

Status set_config(Config& config, std::string_view key, std::string_view value) {
  if (key == "name") return set_name(config, value);
  if (key == "address") return set_address(config, value);
  if (key == "port") return set_port(config, value);
  if (key == "cpus") return set_cpus(config, value);
  if (key == "memory") return set_memory(config, value);
  if (key == "rundir") return set_path(config.rundir, key, value);
  if (key == "key") return set_path(config.key, key, value);
  if (key == "encrypt") return set_flag(config.encrypt, key, value);
  if (key == "frame-blocks") return set_flag(config.frame_blocks, key, value);
  if (key == "transport") return set_transport(config, value);
  if (key == "rdma-device") return set_rdma_device(config, value);
  if (key == "rdma-port") return set_rdma(config.rdma.port, key, value, 1u, 255u);
  if (key == "rdma-gid-index") return set_rdma(config.rdma.gid_index, key, value, 0, 255);
  if (key == "rdma-service-level") return set_rdma(config.rdma.service_level, key, value, 0u, 15u);
  if (key == "rdma-traffic-class") return set_rdma(config.rdma.traffic_class, key, value, 0u, 255u);
  if (key == "domains") return set_path(config.domains, key, value);
  if (key == "slice") return set_path(config.slice, key, value);
  if (key == "socket") return set_path(config.socket, key, value);
  if (key == "peer") return set_peers(config, value);
  if (key == "lost-after") return set_seconds(config.lost_after, key, value);
  if (key == "start-within") return set_seconds(config.start_within, key, value);
  if (key == "log") return set_log(config, value);
  std::string known;
  for (const ConfigKey& each : config_keys()) known += fmt::format(" {}", each.name);
  return invalid(fmt::format("unknown key \"{}\": the keys are{}", key, known));
}

Status read_config(Config& config, std::string_view text, const std::string& file) {
  for (int number = 1; !text.empty(); ++number) {
    const auto end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    line = trim(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const auto equals = line.find('=');
    Status set =
        equals == std::string_view::npos
            ? Status(invalid(fmt::format("\"{}\": write it as key = value", line)))
            : set_config(config, trim(line.substr(0, equals)), trim(line.substr(equals + 1)));
    if (!set)
      return Error{set.error().code, fmt::format("{}:{}: {}", file, number, set.error().message)};
  }
  return {};
}

Status complete_config(Config& config) {
  if (config.name.empty()) {
    const std::string name = local_host_name();
    if (!is_host_name(name))
      return invalid(
          fmt::format("the machine's name \"{}\" cannot be a host name: set name in "
                      "xenspand.conf or use --name",
                      name));
    config.name = name;
  }
  const std::vector<int> usable = usable_cpus();
  if (config.cpus.empty()) config.cpus = usable;
  for (const int cpu : config.cpus)
    if (std::find(usable.begin(), usable.end(), cpu) == usable.end())
      return invalid(fmt::format("cpus: this machine has no usable core {}: see lscpu", cpu));
  if (config.memory == 0)
    config.memory = static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) *
                    static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  if (config.socket.empty()) config.socket = config.own_dir() + "/control";
  // sun_path of a Unix socket, with its NUL.
  if (config.socket.size() > 107)
    return invalid(
        fmt::format("socket {} is longer than 107 bytes: choose a shorter path", config.socket));
  if (config.key.empty()) config.key = XENSPAN_SYSCONFDIR "/cluster.key";
  if (config.domains.empty()) config.domains = XENSPAN_SYSCONFDIR "/domains";
  std::erase_if(config.peers, [&](const PeerAddress& peer) { return peer.name == config.name; });
  return {};
}

Result<std::vector<int>> parse_cpu_list(std::string_view text) {
  const Error bad =
      invalid(fmt::format("cpus \"{}\" is not a list of cores: write it as 0-3,6", text));
  std::vector<int> cpus;
  if (text.empty()) return bad;
  while (!text.empty()) {
    const auto comma = std::min(text.find(','), text.size());
    const std::string_view range = trim(text.substr(0, comma));
    const auto dash = range.find('-');
    const auto first = whole_number<unsigned>(range.substr(0, dash));
    const auto last =
        dash == std::string_view::npos ? first : whole_number<unsigned>(range.substr(dash + 1));
    if (!first || !last || *last < *first || *last >= CPU_SETSIZE) return bad;
    for (unsigned cpu = *first; cpu <= *last; ++cpu)
      if (std::find(cpus.begin(), cpus.end(), static_cast<int>(cpu)) == cpus.end())
        cpus.push_back(static_cast<int>(cpu));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return cpus;
}

Result<PeerAddress> parse_peer(std::string_view text) {
  const Error bad = invalid(fmt::format(
      "peer \"{}\": write it as NAME=ADDRESS or NAME=ADDRESS:PORT with a numeric address", text));
  const auto equals = text.find('=');
  if (equals == std::string_view::npos) return bad;
  PeerAddress peer;
  peer.name = text.substr(0, equals);
  std::string_view rest = text.substr(equals + 1);
  std::string_view port;
  if (!rest.empty() && rest.front() == '[') {
    const auto bracket = rest.find(']');
    if (bracket == std::string_view::npos) return bad;
    peer.address = rest.substr(1, bracket - 1);
    port = rest.substr(bracket + 1);
  } else {
    const auto colon = rest.find(':');
    // More than one colon: an IPv6 address without a port.
    const bool bare = colon == std::string_view::npos || rest.find(':', colon + 1) != rest.npos;
    peer.address = rest.substr(0, bare ? rest.size() : colon);
    port = bare ? std::string_view{} : rest.substr(colon);
  }
  if (!port.empty()) {
    const auto number =
        port.front() == ':' ? whole_number<std::uint16_t>(port.substr(1)) : std::nullopt;
    if (!number || *number == 0) return bad;
    peer.port = *number;
  }
  if (!is_host_name(peer.name) || !is_address(peer.address)) return bad;
  return peer;
}

}  // namespace xenspan::daemon
