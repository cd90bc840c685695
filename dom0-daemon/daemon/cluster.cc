#include "dom0-daemon/daemon/cluster.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "config.h"
#include "dom0-daemon/daemon/names.h"

namespace xenspan::daemon {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kHandshakeLimit{5000};
constexpr milliseconds kFirstRetry{200};
constexpr milliseconds kLastRetry{5000};
constexpr std::size_t kMaxHalfOpen = 32;
constexpr std::size_t kMaxPeers = 1024;
constexpr int kMaxDropLines = 20;  // in one tick, a second at most
constexpr std::size_t kMaxReason = 500;

std::string remote_text(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address->sa_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
    inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
    return address_text(text, ntohs(v4->sin_port));
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(address);
  inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
  return address_text(text, ntohs(v6->sin6_port));
}

// A peer's words for our log: one line of printable characters, not too long.
std::string printable(std::string text) {
  text.resize(std::min(text.size(), kMaxReason));
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return text;
}

}  // namespace

const char* host_state_text(HostState state) {
  switch (state) {
    case HostState::kConnecting: return "connecting";
    case HostState::kActive: return "up";
    case HostState::kLost: return "down";
  }
  return "";
}

Cluster::Cluster(EventLoop& loop, std::unique_ptr<TlsContext> tls, const Config& config,
                 Handler& handler)
    : loop_(loop),
      tls_(std::move(tls)),
      config_(config),
      handler_(handler),
      instance_(random_hex(16)) {}

Cluster::~Cluster() {
  if (listener_ != nullptr) evconnlistener_free(listener_);
}

Status Cluster::start() {
  if (!tls_) return {};
  sockaddr_storage storage{};
  int length = sizeof storage;
  const std::string text = address_text(config_.address, config_.port);
  auto* address = reinterpret_cast<sockaddr*>(&storage);
  if (evutil_parse_sockaddr_port(text.c_str(), address, &length) != 0)
    return Error{EINVAL, "cannot listen on " + text + ": not an address"};
  listener_ = evconnlistener_new_bind(
      loop_.base(),
      [](evconnlistener*, evutil_socket_t fd, sockaddr* from, int, void* self) {
        static_cast<Cluster*>(self)->accepted(UniqueFd(fd), remote_text(from));
      },
      this, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 64, address, length);
  if (listener_ == nullptr)
    return system_error(errno, "cannot listen on " + text,
                        errno == EADDRINUSE
                            ? "another xenspand uses it; stop that one or set port"
                            : "set address to one of this machine's addresses (see ip address)");
  // Three heartbeats fit into the time after which silence means loss.
  const milliseconds period =
      std::clamp(config_.lost_after / 3, milliseconds(200), milliseconds(1000));
  lost_ticks_ = static_cast<int>((config_.lost_after + period - milliseconds(1)) / period);
  tick_ = std::make_unique<Timer>(
      loop_, period, [this] { tick(); }, /*repeat=*/true);
  for (const PeerAddress& peer : config_.peers) add_peer(peer);
  return {};
}

void Cluster::set_record(const HostRecord& record) { record_ = record; }

void Cluster::add_peer(const PeerAddress& address) {
  if (address.name == config_.name || peers_.contains(address.name)) return;
  if (peers_.size() >= kMaxPeers) return;
  peers_[address.name].address = address;
  peers_[address.name].error = "no connection yet";
  dial(address.name);
}

bool Cluster::dialing(const std::string& name) const {
  return std::any_of(connections_.begin(), connections_.end(), [&](const auto& connection) {
    return connection->link->dialed() && connection->name == name;
  });
}

void Cluster::dial(const std::string& name) {
  dialing_[name].retry.reset();
  if (leaving_ || established(name) != nullptr || dialing(name)) return;
  auto connection = std::make_unique<Connection>();
  connection->name = name;
  connection->link = std::make_unique<PeerLink>(loop_, *tls_, *this, peers_.at(name).address);
  connection->handshake = std::make_unique<Timer>(
      loop_, kHandshakeLimit,
      [link = connection->link.get()] { link->close("no answer within 5 s"); });
  connections_.push_back(std::move(connection));
}

void Cluster::dial_later(const std::string& name) {
  if (leaving_ || !peers_.contains(name)) return;
  Dialing& dialing = dialing_[name];
  if (dialing.retry) return;
  dialing.delay = std::clamp(dialing.delay * 2, kFirstRetry, kLastRetry);
  dialing.retry = std::make_unique<Timer>(loop_, dialing.delay, [this, name] { dial(name); });
}

void Cluster::accepted(UniqueFd fd, const std::string& remote) {
  const auto half_open = std::count_if(connections_.begin(), connections_.end(), [](auto& each) {
    return !each->established && !each->link->dialed();
  });
  if (static_cast<std::size_t>(half_open) >= kMaxHalfOpen) {
    log_drop(remote, fmt::format("{} others have not said hello yet", half_open));
    return;
  }
  auto connection = std::make_unique<Connection>();
  connection->link = std::make_unique<PeerLink>(loop_, *tls_, *this, std::move(fd), remote);
  connection->handshake = std::make_unique<Timer>(
      loop_, kHandshakeLimit,
      [link = connection->link.get()] { link->close("no hello within 5 s"); });
  connections_.push_back(std::move(connection));
}

Cluster::Connection* Cluster::find(const PeerLink& link) {
  for (auto& connection : connections_)
    if (connection->link.get() == &link) return connection.get();
  return nullptr;
}

Cluster::Connection* Cluster::established(const std::string& name) {
  for (auto& connection : connections_)
    if (connection->established && connection->name == name) return connection.get();
  return nullptr;
}

Json Cluster::greeting(const char* op) const {
  Json known = Json::array();
  for (const auto& [name, peer] : peers_)
    if (peer.state == HostState::kActive)
      known.push_back(
          {{"name", name}, {"address", peer.address.address}, {"port", peer.address.port}});
  return Json{{"op", op},
              {"protocol", kClusterProtocol},
              {"version", PACKAGE_VERSION},
              {"instance", instance_},
              {"host", to_json(record_)},
              {"peers", known}};
}

void Cluster::link_open(PeerLink& link) {
  // The dialing end speaks first.
  if (link.dialed()) link.send(greeting("hello"));
}

void Cluster::link_message(PeerLink& link, Json message) {
  Connection* connection = find(link);
  if (connection == nullptr) return;
  connection->silent_ticks = 0;
  const std::string op = text_or(message, "op", "");
  if (!connection->established) {
    if (!link.dialed() && op == "hello") return on_hello(*connection, message);
    if (link.dialed() && op == "welcome") return on_welcome(*connection, message);
    if (link.dialed() && op == "refused") return on_refused(*connection, message);
    return link.close("malformed greeting");
  }
  if (op == "beat") {
    const Json* host = object_field(message, "host");
    if (host != nullptr) update(connection->name, *host);
  } else if (op == "bye") {
    link.close("its xenspand was stopped");
  } else {
    handler_.host_message(connection->name, std::move(message));
  }
}

Result<HostRecord> Cluster::check_greeting(const Json& message) const {
  const std::uint64_t protocol = number_or(message, "protocol", 0);
  const Json* host = object_field(message, "host");
  const std::string name = host == nullptr ? "" : text_or(*host, "name", "");
  const std::string who = is_host_name(name) ? "host " + name : "the peer";
  if (protocol != kClusterProtocol)
    return Error{EPROTO, fmt::format("{} speaks version {} of the cluster protocol (xenspan {}), "
                                     "host {} version {} (xenspan {}): install the same xenspan on "
                                     "both",
                                     who, protocol, printable(text_or(message, "version", "?")),
                                     config_.name, kClusterProtocol, PACKAGE_VERSION)};
  if (host == nullptr) return Error{EBADMSG, "malformed greeting: no host record"};
  auto record = host_record_from(*host);
  if (!record) return Error{EBADMSG, "malformed greeting: " + record.error().message};
  const std::string instance = text_or(message, "instance", "");
  if (instance.size() != 32) return Error{EBADMSG, "malformed greeting: no instance"};
  if (record->name == config_.name)
    return Error{
        EEXIST, fmt::format("two hosts are named {}: give one of them another name", config_.name)};
  return record;
}

void Cluster::refuse(Connection& connection, const std::string& reason) {
  connection.link->send({{"op", "refused"}, {"error", reason}, {"protocol", kClusterProtocol}});
  connection.link->close_after_sending("refused: " + reason);
}

void Cluster::on_hello(Connection& connection, const Json& message) {
  const auto record = check_greeting(message);
  if (!record) return refuse(connection, record.error().message);
  const std::string& name = record->name;
  if (!peers_.contains(name) && peers_.size() >= kMaxPeers)
    return refuse(connection, "this cluster has too many hosts");
  if (Connection* old = established(name)) {
    // The same daemon: it may not have noticed yet that the old connection is good, or we that it
    // is dead. The heartbeat decides; the peer comes again.
    if (old->instance == text_or(message, "instance", ""))
      return refuse(connection, "connected already");
    link_closed(*old->link, "its xenspand was started anew");
  }
  for (auto& other : connections_) {
    if (!other->link->dialed() || other->name != name || other->established) continue;
    // Crossing dials. Ours counts when our hello is out and our name is the smaller one.
    if (other->link->is_open() && config_.name < name)
      return refuse(connection, "connected already");
    other->link->close("the peer's own connection came first");
  }
  connection.link->send(greeting("welcome"));
  establish(connection, *record, message);
}

void Cluster::on_welcome(Connection& connection, const Json& message) {
  auto record = check_greeting(message);
  if (!record) return connection.link->close(record.error().message);
  if (record->name != connection.name)
    return connection.link->close(
        fmt::format("the host there is named {}: correct the peer list", record->name));
  if (established(connection.name) != nullptr) return connection.link->close("connected already");
  establish(connection, *record, message);
}

void Cluster::on_refused(Connection& connection, const Json& message) {
  connection.link->close(printable(text_or(message, "error", "it refused the connection")));
}

void Cluster::establish(Connection& connection, const HostRecord& record, const Json& greeting) {
  connection.established = true;
  connection.silent_ticks = 0;
  connection.name = record.name;
  connection.instance = text_or(greeting, "instance", "");
  connection.handshake.reset();
  Peer& peer = peers_[record.name];
  peer.address = {record.name, record.address, record.port};
  peer.state = HostState::kActive;
  peer.error.clear();
  peer.record = record;
  dialing_[record.name] = {};
  log::info("host {} joined from {} (xenspan {}, {} cores)", record.name, connection.link->remote(),
            record.version, record.cores.size());
  handler_.host_joined(record);
  learn(greeting);
}

void Cluster::learn(const Json& greeting) {
  const Json* known = array_field(greeting, "peers");
  if (known == nullptr) return;
  for (const Json& each : *known) {
    const auto peer =
        parse_peer(fmt::format("{}=[{}]:{}", text_or(each, "name", ""),
                               text_or(each, "address", ""), number_or(each, "port", 0)));
    if (peer) add_peer(*peer);
  }
}

void Cluster::update(const std::string& name, const Json& host) {
  auto record = host_record_from(host);
  if (!record || record->name != name) return;
  peers_[name].record = *record;
  handler_.host_changed(*record);
}

void Cluster::set_error(const std::string& name, const std::string& reason) {
  Peer& peer = peers_[name];
  // Crossing dials are no error, and a repeated reason fills no log.
  if (reason == "connected already" || peer.error == reason) return;
  if (peer.state != HostState::kActive) log::info("host {} is not connected: {}", name, reason);
  peer.error = reason;
}

void Cluster::link_closed(PeerLink& link, const std::string& reason) {
  const auto found = std::find_if(connections_.begin(), connections_.end(),
                                  [&](const auto& each) { return each->link.get() == &link; });
  if (found == connections_.end()) return;
  // Kept alive until the callbacks that led here have returned.
  const std::shared_ptr<Connection> connection(std::move(*found));
  connections_.erase(found);
  loop_.later([connection] {});
  if (!connection->established) {
    if (!link.dialed()) {
      if (reason != "refused: connected already") log_drop(link.remote(), reason);
      return;
    }
    set_error(connection->name, reason);
    return dial_later(connection->name);
  }
  Peer& peer = peers_[connection->name];
  peer.state = HostState::kLost;
  peer.error = reason;
  if (!leaving_) log::warning("lost host {}: {}", connection->name, reason);
  handler_.host_lost(connection->name, reason);
  dial_later(connection->name);
}

void Cluster::log_drop(const std::string& remote, const std::string& reason) {
  if (++drops_ <= kMaxDropLines) log::warning("dropped the connection from {}: {}", remote, reason);
}

void Cluster::tick() {
  if (drops_ > kMaxDropLines) log::warning("dropped {} more connections", drops_ - kMaxDropLines);
  drops_ = 0;
  const Json beat{{"op", "beat"}, {"host", to_json(record_)}};
  for (auto& connection : connections_) {
    if (!connection->established) continue;
    connection->link->send(beat);
    // Counted in ticks, so that a machine that stood still does not take the others for dead.
    if (++connection->silent_ticks > lost_ticks_)
      connection->link->close(
          fmt::format("no sign of life for {} s", config_.lost_after.count() / 1000));
  }
}

bool Cluster::send(const std::string& name, const Json& message) {
  Connection* connection = established(name);
  if (connection == nullptr) return false;
  connection->link->send(message);
  return true;
}

void Cluster::send_to_all(const Json& message) {
  for (auto& connection : connections_)
    if (connection->established) connection->link->send(message);
}

void Cluster::leave() {
  leaving_ = true;
  if (listener_ != nullptr) evconnlistener_disable(listener_);
  for (auto& connection : connections_) {
    if (connection->established) connection->link->send({{"op", "bye"}});
    connection->link->close_after_sending("this xenspand is being stopped");
  }
}

bool Cluster::sending() const {
  return std::any_of(connections_.begin(), connections_.end(),
                     [](const auto& connection) { return connection->link->sending(); });
}

}  // namespace xenspan::daemon
