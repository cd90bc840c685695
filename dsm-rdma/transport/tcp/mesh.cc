// connect_mesh(): every lane's connection, both ways, before the first page moves.
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "dsm-rdma/transport/silent_peer.h"
#include "dsm-rdma/transport/tcp/lanes.h"

namespace xenspan::dsm::tcp {
namespace {

// Bytes a connection may have under way: all answers to one lane's window (16 x 4160), several
// times over, so that a sender never has to wait for its peer's service thread.
constexpr int kBufferBytes = 1 << 20;

void set_buffer(int fd, int force, int ordinary) {
  if (::setsockopt(fd, SOL_SOCKET, force, &kBufferBytes, sizeof kBufferBytes) == 0) return;
  ::setsockopt(fd, SOL_SOCKET, ordinary, &kBufferBytes,
               sizeof kBufferBytes);  // capped by net.core.{w,r}mem_max
}

void tune(int fd, unsigned dead_after_ms) {
  set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF);
  set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF);
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  end_when_silent(fd, dead_after_ms);
}

TcpTransport::Streams empty_streams(const MeshConfig& config) {
  TcpTransport::Streams streams(config.lanes + 1);
  for (auto& lane : streams) lane.resize(config.hosts.size());
  return streams;
}

// Where the acceptor's thread leaves the peers' connections.
class Collector {
 public:
  explicit Collector(const MeshConfig& config, HostId self)
      : self_(self), streams_(empty_streams(config)) {}

  bool take(std::unique_ptr<SecureStream> stream) {
    const StreamId& id = stream->id();
    const std::lock_guard guard(lock_);
    if (closed_ || id.tag >= streams_.size() || id.from >= streams_[0].size()) return false;
    // A second one for the same place: its owner did not hear that the first was accepted.
    streams_[id.tag][id.from] = std::move(stream);
    arrived_.notify_one();
    return true;
  }
  // All of them; or the first host that is missing.
  Result<TcpTransport::Streams> wait_until(std::chrono::steady_clock::time_point deadline,
                                           const std::vector<Peer>& hosts) {
    std::unique_lock guard(lock_);
    arrived_.wait_until(guard, deadline, [this] { return missing() < 0; });
    closed_ = true;
    const int host = missing();
    if (host < 0) return std::move(streams_);
    return Error{ETIMEDOUT, fmt::format("host {} has not connected here in time: see its log, and "
                                        "check that its address reaches "
                                        "this host's",
                                        hosts[static_cast<std::size_t>(host)].name)};
  }

 private:
  int missing() const {
    for (const auto& lane : streams_) {
      for (std::size_t host = 0; host < lane.size(); ++host) {
        if (host != self_ && !lane[host]) return static_cast<int>(host);
      }
    }
    return -1;
  }

  const HostId self_;
  std::mutex lock_;
  std::condition_variable arrived_;
  TcpTransport::Streams streams_;
  bool closed_ = false;
};

// Takes the handler away again when set-up fails half way; afterwards lanes are refused for good.
class HandlerGuard {
 public:
  HandlerGuard(Acceptor& acceptor, std::shared_ptr<Collector> collector) : acceptor_(acceptor) {
    acceptor_.set_handler(kPurposeLane, [collector](std::unique_ptr<SecureStream> stream) {
      return collector->take(std::move(stream));
    });
  }
  ~HandlerGuard() {
    acceptor_.set_handler(kPurposeLane, [](std::unique_ptr<SecureStream>) { return false; });
  }

 private:
  Acceptor& acceptor_;
};

Status connect_own(const MeshConfig& config, const Acceptor& acceptor,
                   std::chrono::steady_clock::time_point deadline, TcpTransport::Streams& own) {
  for (std::size_t peer = 0; peer < config.hosts.size(); ++peer) {
    if (peer == acceptor.self()) continue;
    for (unsigned lane = 0; lane <= config.lanes; ++lane) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline - std::chrono::steady_clock::now());
      ConnectOptions options;
      options.address = config.hosts[peer].address;
      options.port = config.hosts[peer].port;
      options.secret = acceptor.secret();
      options.self = acceptor.self();
      options.peer = static_cast<HostId>(peer);
      options.epoch = acceptor.epoch();
      options.tag = lane;
      options.encrypt = acceptor.encrypt();
      options.timeout_ms = static_cast<int>(std::max<long>(left.count(), 1));
      auto made = connect_stream(options);
      if (!made)
        return Error{made.error().code, config.hosts[peer].name + ": " + made.error().message};
      own[lane][peer] = std::move(*made);
    }
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Transport>> connect_mesh(const MeshConfig& config, Acceptor& acceptor) {
  if (config.hosts.empty() || config.hosts.size() != acceptor.hosts() ||
      config.hosts.size() > kMaxHosts || config.lanes == 0 || config.lanes > kMaxLanes ||
      config.pages == 0) {
    return Error{EINVAL,
                 fmt::format("cannot connect {} hosts with {} lanes: 1 to {} hosts, 1 to {} lanes",
                             config.hosts.size(), config.lanes, kMaxHosts, kMaxLanes)};
  }
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(config.timeout_ms);
  const auto collector = std::make_shared<Collector>(config, acceptor.self());
  const HandlerGuard guard(acceptor, collector);
  TcpTransport::Streams own = empty_streams(config);
  if (Status status = connect_own(config, acceptor, deadline, own); !status) return status.error();
  auto theirs = collector->wait_until(deadline, config.hosts);
  if (!theirs) return theirs.error();
  for (auto* side : {&own, &*theirs}) {
    for (auto& lane : *side) {
      for (auto& stream : lane) {
        if (stream) tune(stream->fd(), config.dead_after_ms);
      }
    }
  }
  return TcpTransport::create(config, acceptor, std::move(own), std::move(*theirs));
}

}  // namespace xenspan::dsm::tcp
