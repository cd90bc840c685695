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
  for (auto& lane : streams) lane.resize(kMaxHosts);
  return streams;
}

// What a lane's connection declares: the lane, and which of the hosts that have had the connecting
// side's number it is.
constexpr unsigned kLaneBits = 8;
static_assert(kMaxLanes < 1u << kLaneBits);
std::uint32_t tag_of(unsigned lane, std::uint32_t incarnation) {
  return incarnation << kLaneBits | lane;
}

// The peers that connections are made to and expected from, by number; empty names: nobody.
using Peers = std::vector<Peer>;

// Where the acceptor's thread leaves the peers' connections.
class Collector {
 public:
  Collector(const MeshConfig& config, Peers peers)
      : peers_(std::move(peers)), streams_(empty_streams(config)) {}

  bool take(std::unique_ptr<SecureStream> stream) {
    const StreamId& id = stream->id();
    const std::size_t lane = id.tag & ((1u << kLaneBits) - 1);
    const std::lock_guard guard(lock_);
    if (closed_ || lane >= streams_.size() || id.from >= peers_.size() ||
        peers_[id.from].name.empty() || id.tag >> kLaneBits != peers_[id.from].incarnation) {
      return false;
    }
    // A second one for the same place: its owner did not hear that the first was accepted.
    streams_[lane][id.from] = std::move(stream);
    arrived_.notify_one();
    return true;
  }
  // All of them; or the first host that is missing.
  Result<TcpTransport::Streams> wait_until(std::chrono::steady_clock::time_point deadline) {
    std::unique_lock guard(lock_);
    arrived_.wait_until(guard, deadline, [this] { return missing() < 0; });
    closed_ = true;
    const int host = missing();
    if (host < 0) return std::move(streams_);
    return Error{ETIMEDOUT, fmt::format("host {} has not connected here in time: see its log, and "
                                        "check that its address reaches "
                                        "this host's",
                                        peers_[static_cast<std::size_t>(host)].name)};
  }

 private:
  int missing() const {
    for (const auto& lane : streams_) {
      for (std::size_t host = 0; host < peers_.size(); ++host) {
        if (!peers_[host].name.empty() && !lane[host]) return static_cast<int>(host);
      }
    }
    return -1;
  }

  const Peers peers_;
  std::mutex lock_;
  std::condition_variable arrived_;
  TcpTransport::Streams streams_;
  bool closed_ = false;
};

// Takes the handler away again, also when set-up fails half way. Lanes are refused then; where
// hosts may join, they are told to try again.
class HandlerGuard {
 public:
  HandlerGuard(Acceptor& acceptor, std::shared_ptr<Collector> collector, bool more_may_come)
      : acceptor_(acceptor), more_may_come_(more_may_come) {
    acceptor_.set_handler(kPurposeLane, [collector](std::unique_ptr<SecureStream> stream) {
      return collector->take(std::move(stream));
    });
  }
  ~HandlerGuard() {
    if (more_may_come_) {
      acceptor_.set_handler(kPurposeLane, nullptr);
    } else {
      acceptor_.set_handler(kPurposeLane, [](std::unique_ptr<SecureStream>) { return false; });
    }
  }

 private:
  Acceptor& acceptor_;
  const bool more_may_come_;
};

Status connect_own(const MeshConfig& config, const Acceptor& acceptor, const Peers& peers,
                   std::chrono::steady_clock::time_point deadline, TcpTransport::Streams& own) {
  const std::uint32_t incarnation =
      acceptor.self() < config.hosts.size() ? config.hosts[acceptor.self()].incarnation : 0;
  for (std::size_t peer = 0; peer < peers.size(); ++peer) {
    if (peers[peer].name.empty()) continue;
    for (unsigned lane = 0; lane <= config.lanes; ++lane) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline - std::chrono::steady_clock::now());
      ConnectOptions options;
      options.address = peers[peer].address;
      options.port = peers[peer].port;
      options.secret = acceptor.secret();
      options.self = acceptor.self();
      options.peer = static_cast<HostId>(peer);
      options.epoch = acceptor.epoch();
      options.tag = tag_of(lane, incarnation);
      options.encrypt = acceptor.encrypt();
      options.timeout_ms = static_cast<int>(std::max<long>(left.count(), 1));
      auto made = connect_stream(options);
      if (!made) return Error{made.error().code, peers[peer].name + ": " + made.error().message};
      own[lane][peer] = std::move(*made);
    }
  }
  return {};
}

// Connections to and from all these peers, both ways.
struct BothWays {
  TcpTransport::Streams own, theirs;
};
Result<BothWays> connect(const MeshConfig& config, Acceptor& acceptor, const Peers& peers,
                         int timeout_ms, bool more_may_come) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  const auto collector = std::make_shared<Collector>(config, peers);
  const HandlerGuard guard(acceptor, collector, more_may_come);
  TcpTransport::Streams own = empty_streams(config);
  if (Status status = connect_own(config, acceptor, peers, deadline, own); !status)
    return status.error();
  auto theirs = collector->wait_until(deadline);
  if (!theirs) return theirs.error();
  for (auto* side : {&own, &*theirs}) {
    for (auto& lane : *side) {
      for (auto& stream : lane) {
        if (stream) tune(stream->fd(), config.dead_after_ms);
      }
    }
  }
  return BothWays{std::move(own), std::move(*theirs)};
}

}  // namespace

Result<std::unique_ptr<Transport>> connect_mesh(const MeshConfig& config, Acceptor& acceptor) {
  if (config.hosts.empty() || config.hosts.size() > acceptor.hosts() ||
      acceptor.self() >= config.hosts.size() || acceptor.hosts() > kMaxHosts || config.lanes == 0 ||
      config.lanes > kMaxLanes || config.pages == 0) {
    return Error{EINVAL,
                 fmt::format("cannot connect {} hosts with {} lanes: 1 to {} hosts, 1 to {} lanes",
                             config.hosts.size(), config.lanes, acceptor.hosts(), kMaxLanes)};
  }
  Peers peers = config.hosts;
  peers[acceptor.self()].name.clear();
  std::size_t named = 1;
  for (const Peer& peer : peers) named += !peer.name.empty();
  auto made = connect(config, acceptor, peers, config.timeout_ms, named < acceptor.hosts());
  if (!made) return made.error();
  return TcpTransport::create(config, acceptor, std::move(made->own), std::move(made->theirs));
}

Status add_peer(Transport& mesh, Acceptor& acceptor, HostId host, const Peer& peer,
                int timeout_ms) {
  auto* const transport = dynamic_cast<TcpTransport*>(&mesh);
  if (transport == nullptr || host >= acceptor.hosts() || host == acceptor.self() ||
      peer.name.empty() || transport->reaches(host)) {
    return Error{EINVAL, fmt::format("host {} cannot join as number {}: numbers are below {} and "
                                     "nobody's, and hosts join by TCP only",
                                     peer.name, host, acceptor.hosts())};
  }
  Peers peers(host + 1u);
  peers[host] = peer;
  auto made = connect(transport->config(), acceptor, peers, timeout_ms, true);
  if (!made) return made.error();
  std::vector<std::unique_ptr<SecureStream>> own, theirs;
  for (std::size_t lane = 0; lane < made->own.size(); ++lane) {
    own.push_back(std::move(made->own[lane][host]));
    theirs.push_back(std::move(made->theirs[lane][host]));
  }
  return transport->add_peer(host, std::move(own), std::move(theirs));
}

}  // namespace xenspan::dsm::tcp
