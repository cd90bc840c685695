// connect_verbs(): a stream to each peer, the exchange of queue pairs on it, and a last word that
// all are ready.
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "dsm-rdma/transport/silent_peer.h"
#include "dsm-rdma/transport/verbs/lanes.h"

namespace xenspan::dsm::verbs {
namespace {

using Clock = std::chrono::steady_clock;
using Streams = std::vector<std::unique_ptr<tcp::SecureStream>>;

constexpr std::uint8_t kReady = 0x52;

long left_ms(Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
  return std::max<long>(left.count(), 1);
}

// Where the acceptor's thread leaves the streams of hosts with a higher number.
class Collector {
 public:
  Collector(HostId self, std::size_t hosts) : self_(self), streams_(hosts) {}

  bool take(std::unique_ptr<tcp::SecureStream> stream) {
    const HostId from = stream->id().from;
    const std::lock_guard guard(lock_);
    if (closed_ || from >= streams_.size() || from <= self_) return false;
    // A second one from the same host: it did not hear that the first was accepted.
    streams_[from] = std::move(stream);
    arrived_.notify_one();
    return true;
  }
  // Those of all higher hosts; or the first host that is missing.
  Result<Streams> wait_until(Clock::time_point deadline, const std::vector<tcp::Peer>& hosts) {
    std::unique_lock guard(lock_);
    arrived_.wait_until(guard, deadline, [this] { return missing() == streams_.size(); });
    closed_ = true;
    const std::size_t host = missing();
    if (host == streams_.size()) return std::move(streams_);
    return Error{ETIMEDOUT, fmt::format("host {} has not connected here in time: see its log, and "
                                        "check that its address reaches this host's",
                                        hosts[host].name)};
  }

 private:
  std::size_t missing() const {
    std::size_t host = self_ + std::size_t{1};
    while (host < streams_.size() && streams_[host]) ++host;
    return host;
  }

  const HostId self_;
  std::mutex lock_;
  std::condition_variable arrived_;
  Streams streams_;
  bool closed_ = false;
};

// Takes the handler away again when set-up fails half way; afterwards streams are refused for good.
class HandlerGuard {
 public:
  HandlerGuard(tcp::Acceptor& acceptor, std::shared_ptr<Collector> collector)
      : acceptor_(acceptor) {
    acceptor_.set_handler(kPurposeVerbs, [collector](std::unique_ptr<tcp::SecureStream> stream) {
      return collector->take(std::move(stream));
    });
  }
  ~HandlerGuard() {
    acceptor_.set_handler(kPurposeVerbs, [](std::unique_ptr<tcp::SecureStream>) { return false; });
  }

 private:
  tcp::Acceptor& acceptor_;
};

Result<std::unique_ptr<tcp::SecureStream>> connect_to(const VerbsConfig& config,
                                                      const tcp::Acceptor& acceptor,
                                                      std::size_t peer,
                                                      Clock::time_point deadline) {
  tcp::ConnectOptions options;
  options.address = config.hosts[peer].address;
  options.port = config.hosts[peer].port;
  options.secret = acceptor.secret();
  options.self = acceptor.self();
  options.peer = static_cast<HostId>(peer);
  options.epoch = acceptor.epoch();
  options.purpose = kPurposeVerbs;
  options.timeout_ms = static_cast<int>(left_ms(deadline));
  auto made = tcp::connect_stream(options);
  if (made) return made;
  return Error{made.error().code, config.hosts[peer].name + ": " + made.error().message};
}

// One stream a peer: made by the host with the higher number.
Result<Streams> connect_streams(const VerbsConfig& config, tcp::Acceptor& acceptor,
                                Clock::time_point deadline) {
  const auto collector = std::make_shared<Collector>(acceptor.self(), config.hosts.size());
  const HandlerGuard guard(acceptor, collector);
  Streams made(config.hosts.size());
  for (std::size_t peer = 0; peer < acceptor.self(); ++peer) {
    auto stream = connect_to(config, acceptor, peer, deadline);
    if (!stream) return stream.error();
    made[peer] = std::move(*stream);
  }
  auto accepted = collector->wait_until(deadline, config.hosts);
  if (!accepted) return accepted.error();
  for (std::size_t peer = acceptor.self() + std::size_t{1}; peer < made.size(); ++peer)
    made[peer] = std::move((*accepted)[peer]);
  return made;
}

void set_read_timeout(int socket, long ms) {
  const timeval time{ms / 1000, ms % 1000 * 1000};
  ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
}

// From here on the stream only tells that the peer is gone.
void keep_alive(int socket, unsigned dead_after_ms) {
  set_read_timeout(socket, 0);
  end_when_silent(socket, dead_after_ms);
}

// What all peers go through together: everybody says it before anybody listens for it.
class Exchange {
 public:
  Exchange(const VerbsConfig& config, HostId self, VerbsTransport& transport,
           Clock::time_point deadline)
      : config_(config), self_(self), transport_(transport), deadline_(deadline) {}

  Status records() {
    std::vector<std::byte> bytes(record_bytes(config_.lanes));
    for (HostId peer = 0; peer < config_.hosts.size(); ++peer) {
      if (peer == self_) continue;
      encode(transport_.record(peer), bytes.data());
      if (Status status = tell(peer, bytes.data(), bytes.size()); !status) return status;
    }
    for (HostId peer = 0; peer < config_.hosts.size(); ++peer) {
      if (peer == self_) continue;
      if (Status status = hear(peer, bytes.data(), bytes.size()); !status) return status;
      SetupRecord record;
      if (const char* wrong = decode(bytes.data(), config_.lanes, record))
        return Error{EPROTO, fmt::format("{} sent {}", config_.hosts[peer].name, wrong)};
      if (Status status = transport_.connect(peer, record); !status) return status;
    }
    return {};
  }
  // A queue pair must not be sent to before it can receive.
  Status ready() {
    for (HostId peer = 0; peer < config_.hosts.size(); ++peer) {
      if (peer == self_) continue;
      if (Status status = tell(peer, &kReady, sizeof kReady); !status) return status;
    }
    for (HostId peer = 0; peer < config_.hosts.size(); ++peer) {
      if (peer == self_) continue;
      std::uint8_t said = 0;
      if (Status status = hear(peer, &said, sizeof said); !status) return status;
      if (said != kReady)
        return Error{EPROTO, config_.hosts[peer].name + " ended the set-up wrongly"};
      keep_alive(transport_.stream(peer).fd(), config_.dead_after_ms);
    }
    return {};
  }

 private:
  Status tell(HostId peer, const void* from, std::size_t bytes) {
    const int error = transport_.stream(peer).write_all(from, bytes);
    return error == 0 ? Status() : failed(peer, error);
  }
  Status hear(HostId peer, void* to, std::size_t bytes) {
    set_read_timeout(transport_.stream(peer).fd(), left_ms(deadline_));
    const int error = transport_.stream(peer).read_exact(to, bytes);
    return error == 0 ? Status() : failed(peer, error == EAGAIN ? ETIMEDOUT : error);
  }
  Status failed(HostId peer, int error) const {
    return system_error(error, "cannot agree with " + config_.hosts[peer].name + " on RDMA",
                        "see its log");
  }

  const VerbsConfig& config_;
  const HostId self_;
  VerbsTransport& transport_;
  const Clock::time_point deadline_;
};

Status check(const VerbsConfig& config, const tcp::Acceptor& acceptor) {
  if (acceptor.encrypt()) {
    return Error{EINVAL,
                 "RDMA does not encrypt pages: set encrypt = false, or use --transport tcp"};
  }
  if (config.hosts.size() < 2 || config.hosts.size() > acceptor.hosts() ||
      acceptor.self() >= config.hosts.size() || config.hosts.size() > kMaxHosts ||
      config.lanes == 0 || config.lanes > tcp::kMaxLanes || config.pages == 0 ||
      config.service_level > 15 || config.traffic_class > 255) {
    return Error{EINVAL,
                 fmt::format("cannot connect {} hosts with {} lanes by RDMA: 2 to {} hosts, 1 to "
                             "{} lanes, service level 0 to 15, traffic class 0 to 255",
                             config.hosts.size(), config.lanes, kMaxHosts, tcp::kMaxLanes)};
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Transport>> connect_verbs(const VerbsConfig& config,
                                                 tcp::Acceptor& acceptor) {
  if (Status status = check(config, acceptor); !status) return status.error();
  const auto deadline = Clock::now() + std::chrono::milliseconds(config.timeout_ms);
  auto streams = connect_streams(config, acceptor, deadline);
  if (!streams) return streams.error();
  const HostId self = acceptor.self();
  DeviceWish wish{config.device, config.device_port, config.gid_index, {}};
  auto address = local_gid((*streams)[self == 0 ? 1 : 0]->fd());
  if (!address) return address.error();
  wish.address = *address;
  auto device = Device::open(wish);
  if (!device) return device.error();
  auto transport = std::make_unique<VerbsTransport>(config, self, acceptor.epoch());
  Status status = transport->open(std::move(*device));
  for (HostId peer = 0; status.ok() && peer < config.hosts.size(); ++peer) {
    if (peer != self) status = transport->add_peer(peer, std::move((*streams)[peer]));
  }
  Exchange exchange(config, self, *transport, deadline);
  if (status.ok()) status = exchange.records();
  if (status.ok()) status = exchange.ready();
  if (status.ok()) status = transport->start();
  if (!status.ok()) return status.error();
  return std::unique_ptr<Transport>(std::move(transport));
}

}  // namespace xenspan::dsm::verbs
