// Authenticated streams: who gets in, who does not, and that strangers disturb nothing.
#include <gtest/gtest.h>
#include <poll.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <random>
#include <thread>

#include "dsm-rdma/outbox.h"
#include "dsm-rdma/transport/tcp/connection.h"
#include "dsm-rdma/transport/tcp/handshake.h"
#include "dsm-rdma/wire.h"
#include "tests/unit/engine_cluster.h"

namespace xenspan::dsm::tcp {
namespace {

constexpr std::uint8_t kEcho = 3;

// An acceptor whose purpose kEcho keeps what it gets.
class Receiver {
 public:
  explicit Receiver(bool encrypt, unsigned half_open_limit = 16, int timeout_ms = 3000) {
    Acceptor::Config config;
    config.listening = test::listen_on_loopback(port);
    config.secret = test::some_secret(1);
    config.self = 1;
    config.hosts = 3;
    config.epoch = 5;
    config.encrypt = encrypt;
    config.half_open_limit = half_open_limit;
    config.handshake_timeout_ms = timeout_ms;
    config.log = [this](const std::string& line) {
      const std::lock_guard guard(lock_);
      lines_.push_back(line);
      changed_.notify_all();
    };
    auto started = Acceptor::start(std::move(config));
    acceptor = std::move(*started);
  }
  ~Receiver() { acceptor.reset(); }  // its thread uses the other members
  void take_echo() {
    acceptor->set_handler(kEcho, [this](std::unique_ptr<SecureStream> stream) {
      const std::lock_guard guard(lock_);
      taken_.push_back(std::move(stream));
      changed_.notify_all();
      return true;
    });
  }
  std::unique_ptr<SecureStream> next() {
    std::unique_lock guard(lock_);
    changed_.wait_for(guard, std::chrono::seconds(10), [this] { return !taken_.empty(); });
    if (taken_.empty()) return nullptr;
    auto stream = std::move(taken_.front());
    taken_.erase(taken_.begin());
    return stream;
  }
  // Whether a line with this text has been logged, or is within ten seconds.
  bool logged(const std::string& text) {
    std::unique_lock guard(lock_);
    return changed_.wait_for(guard, std::chrono::seconds(10), [&] {
      for (const std::string& line : lines_) {
        if (line.find(text) != std::string::npos) return true;
      }
      return false;
    });
  }
  ConnectOptions options() const {
    ConnectOptions options;
    options.address = "127.0.0.1";
    options.port = port;
    options.secret = test::some_secret(1);
    options.self = 2;
    options.peer = 1;
    options.epoch = 5;
    options.purpose = kEcho;
    options.tag = 77;
    options.encrypt = acceptor->encrypt();
    options.timeout_ms = 10000;
    return options;
  }
  int connect_stranger() const {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return fd;
  }

  std::uint16_t port = 0;
  std::unique_ptr<Acceptor> acceptor;

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
  std::vector<std::unique_ptr<SecureStream>> taken_;
};

std::string error_of(const ConnectOptions& options) {
  auto made = connect_stream(options);
  return made ? "connected" : made.error().message;
}

bool closed_by_peer(int fd) {
  char bytes[256];
  for (;;) {
    const ssize_t got = ::recv(fd, bytes, sizeof bytes, 0);
    if (got <= 0) return true;
  }
}

class Streams : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Encrypted, Streams, testing::Bool());

TEST_P(Streams, CarryBytesBothWays) {
  Receiver receiver(GetParam());
  receiver.take_echo();
  auto made = connect_stream(receiver.options());
  ASSERT_TRUE(made) << made.error().message;
  auto far = receiver.next();
  ASSERT_NE(far, nullptr);
  EXPECT_EQ(far->id().from, 2);
  EXPECT_EQ(far->id().to, 1);
  EXPECT_EQ(far->id().tag, 77u);
  EXPECT_EQ(far->id().epoch, 5u);
  EXPECT_EQ(far->encrypted(), GetParam());

  std::vector<std::uint32_t> sent(700000), got(700000);
  std::mt19937 random(3);
  for (auto& word : sent) word = static_cast<std::uint32_t>(random());
  std::thread echo([&] {
    std::vector<std::byte> bytes(sent.size() * 4);
    ASSERT_EQ(far->read_exact(bytes.data(), bytes.size()), 0);
    const iovec pieces[3] = {{bytes.data(), 5},
                             {bytes.data() + 5, 100000},
                             {bytes.data() + 100005, bytes.size() - 100005}};
    ASSERT_EQ(far->writev(pieces, 3), 0);
  });
  std::thread reader([&] { ASSERT_EQ((*made)->read_exact(got.data(), got.size() * 4), 0); });
  ASSERT_EQ((*made)->write_all(sent.data(), sent.size() * 4), 0);
  echo.join();
  reader.join();
  EXPECT_EQ(sent, got);
}

TEST_P(Streams, ShutdownWakesTheReader) {
  Receiver receiver(GetParam());
  receiver.take_echo();
  auto made = connect_stream(receiver.options());
  ASSERT_TRUE(made) << made.error().message;
  auto far = receiver.next();
  char byte;
  EXPECT_EQ((*made)->read_some(&byte, 1), -EAGAIN);
  std::thread reader([&] {
    char own;
    EXPECT_EQ((*made)->read_exact(&own, 1), EPIPE);
  });
  std::thread far_reader([&] {
    char own;
    EXPECT_EQ(far->read_exact(&own, 1), EPIPE);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  (*made)->shutdown();
  reader.join();
  far_reader.join();
  EXPECT_NE((*made)->write_all(&byte, 1), 0);
}

TEST_P(Streams, EncryptedBytesDoNotShowPlainText) {
  // Seen on the socket itself, behind the stream's back.
  Receiver receiver(GetParam());
  receiver.take_echo();
  auto made = connect_stream(receiver.options());
  ASSERT_TRUE(made);
  auto far = receiver.next();
  const std::string text(64, 'x');
  ASSERT_EQ((*made)->write_all(text.data(), text.size()), 0);
  std::string seen(256, '\0');
  const ssize_t got = ::recv(far->fd(), seen.data(), seen.size(), MSG_PEEK);
  ASSERT_GT(got, 0);
  EXPECT_EQ(seen.substr(0, static_cast<std::size_t>(got)).find("xxxx") != std::string::npos,
            !GetParam());
}

TEST(Stream, RefusalsSayWhy) {
  Receiver receiver(false);
  receiver.take_echo();
  ConnectOptions options = receiver.options();
  options.secret = test::some_secret(2);
  EXPECT_NE(error_of(options).find("does not know the domain's secret"), std::string::npos);
  options = receiver.options();
  options.epoch = 6;
  EXPECT_NE(error_of(options).find("membership epoch"), std::string::npos);
  EXPECT_TRUE(receiver.logged("membership epoch"));
  options = receiver.options();
  options.peer = 0;
  EXPECT_NE(error_of(options).find("host numbers"), std::string::npos);
  options = receiver.options();
  options.self = 3;
  EXPECT_NE(error_of(options).find("host numbers"), std::string::npos);
  options = receiver.options();
  options.encrypt = true;
  EXPECT_NE(error_of(options).find("encrypt setting"), std::string::npos);
  options = receiver.options();
  options.purpose = 9;
  options.timeout_ms = 500;
  EXPECT_NE(error_of(options).find("nothing there takes"), std::string::npos);
  options.address = "no-such-name";
  EXPECT_NE(error_of(options).find("numeric"), std::string::npos);
  EXPECT_EQ(error_of(receiver.options()), "connected");
}

// A connector that gets as far as its proof without the secret.
TEST(Stream, AStrangersProofIsRefused) {
  Receiver receiver(false);
  receiver.take_echo();
  const UniqueFd fd(receiver.connect_stranger());
  const auto hello = handshake::make_hello({2, 1, 5, kEcho, 0, false});
  ASSERT_EQ(::send(fd.get(), hello.data(), hello.size(), 0), 64);
  handshake::Challenge challenge;
  ASSERT_EQ(::recv(fd.get(), challenge.data(), challenge.size(), MSG_WAITALL), 80);
  EXPECT_NE(handshake::check_challenge(test::some_secret(2), hello, challenge), nullptr);
  EXPECT_EQ(handshake::check_challenge(test::some_secret(1), hello, challenge), nullptr);
  const auto proof = handshake::make_proof(test::some_secret(2), hello, challenge);
  ASSERT_EQ(::send(fd.get(), proof.data(), proof.size(), 0), 32);
  EXPECT_TRUE(closed_by_peer(fd.get()));
  EXPECT_TRUE(receiver.logged("does not know the domain's secret"));
}

// What one side proved cannot be played back to it, nor to a later connection.
TEST(Stream, ProofsAreBoundToRoleAndConnection) {
  const Secret secret = test::some_secret(1);
  const auto hello = handshake::make_hello({2, 1, 5, kEcho, 0, false});
  const auto challenge = handshake::make_challenge(secret, hello);
  const auto proof = handshake::make_proof(secret, hello, challenge);
  EXPECT_TRUE(handshake::check_proof(secret, hello, challenge, proof));
  handshake::Proof acceptors;
  std::memcpy(acceptors.data(), challenge.data() + 48, acceptors.size());
  EXPECT_FALSE(handshake::check_proof(secret, hello, challenge, acceptors));
  EXPECT_FALSE(
      handshake::check_proof(secret, hello, handshake::make_challenge(secret, hello), proof));
  for (std::size_t i = 0; i < hello.size(); ++i) {
    auto other = hello;
    other[i] ^= 1;
    EXPECT_FALSE(handshake::check_proof(secret, other, challenge, proof)) << i;
    EXPECT_NE(handshake::check_challenge(secret, other, challenge), nullptr) << i;
  }
}

TEST(Stream, AnotherVersionIsNamed) {
  Receiver receiver(false);
  const UniqueFd fd(receiver.connect_stranger());
  auto hello = handshake::make_hello({2, 1, 5, kEcho, 0, false});
  hello[4] ^= 0x40;
  ASSERT_EQ(::send(fd.get(), hello.data(), hello.size(), 0), 64);
  handshake::Challenge answer;
  ASSERT_EQ(::recv(fd.get(), answer.data(), answer.size(), MSG_WAITALL), 80);
  EXPECT_EQ(handshake::check_challenge(test::some_secret(1), hello, answer),
            handshake::kOtherVersion);
  EXPECT_TRUE(closed_by_peer(fd.get()));
  EXPECT_TRUE(receiver.logged("another version"));
}

TEST(Stream, JunkIsClosedWithOneLineAndDisturbsNobody) {
  Receiver receiver(false);
  receiver.take_echo();
  std::mt19937 random(5);
  for (int i = 0; i < 50; ++i) {
    const UniqueFd fd(receiver.connect_stranger());
    std::vector<char> junk(64 + random() % 200);
    for (char& each : junk) each = static_cast<char>(random());
    ASSERT_GT(::send(fd.get(), junk.data(), junk.size(), MSG_NOSIGNAL), 0);
    EXPECT_TRUE(closed_by_peer(fd.get()));
  }
  EXPECT_TRUE(receiver.logged("does not speak this protocol"));
  EXPECT_EQ(error_of(receiver.options()), "connected");
}

TEST(Stream, SlowStrangersAreBoundedInTimeAndNumber) {
  Receiver receiver(false, 4, 200);
  receiver.take_echo();
  std::vector<UniqueFd> strangers;
  for (int i = 0; i < 12; ++i) strangers.emplace_back(receiver.connect_stranger());
  EXPECT_TRUE(receiver.logged("too many connections"));
  EXPECT_EQ(error_of(receiver.options()), "connected");
  EXPECT_TRUE(receiver.logged("too long to prove itself"));
  for (const UniqueFd& fd : strangers) EXPECT_TRUE(closed_by_peer(fd.get()));
}

TEST(Stream, ASilentPeerIsGivenUp) {
  std::uint16_t port;
  const UniqueFd listening =
      test::listen_on_loopback(port);  // accepts in the kernel, never answers
  Receiver any(false);
  ConnectOptions options = any.options();
  options.port = port;
  options.timeout_ms = 200;
  EXPECT_NE(error_of(options).find("Connection timed out"), std::string::npos);
}

TEST(Stream, AConnectorWaitsForTheHandler) {
  Receiver receiver(false);
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    receiver.take_echo();
  });
  EXPECT_EQ(error_of(receiver.options()), "connected");
  later.join();
}

// ---- the mesh

class JunkSender {
 public:
  explicit JunkSender(std::vector<std::uint16_t> ports) : thread_([this, ports] { run(ports); }) {}
  ~JunkSender() {
    ending_ = true;
    thread_.join();
  }

 private:
  void run(const std::vector<std::uint16_t>& ports) {
    std::mt19937 random(8);
    while (!ending_) {
      for (const std::uint16_t port : ports) {
        const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(port);
        if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
          continue;
        char junk[100];
        for (char& each : junk) each = static_cast<char>(random());
        [[maybe_unused]] const ssize_t sent =
            ::send(fd.get(), junk, 1 + random() % 100, MSG_NOSIGNAL);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

TEST(Mesh, JunkDuringAndAfterSetUpChangesNothing) {
  std::unique_ptr<JunkSender> junk;
  test::ClusterOptions options;
  options.hosts = 3;
  options.before_mesh = [&](const std::vector<Peer>& hosts) {
    std::vector<std::uint16_t> ports;
    for (const Peer& peer : hosts) ports.push_back(peer.port);
    junk = std::make_unique<JunkSender>(ports);
  };
  test::Cluster cluster(options);
  ASSERT_EQ(cluster.failure(), "");
  for (Gfn gfn = 0; gfn < 300; ++gfn) {
    ASSERT_TRUE(cluster.store(gfn % 3, gfn, gfn));
    ASSERT_EQ(cluster.load((gfn + 1) % 3, gfn), gfn);
  }
  EXPECT_EQ(cluster.engine(0).stop_cause(), "");
  EXPECT_NE(cluster.log().find("closed: "), std::string::npos);
}

TEST(Mesh, AMemberThatConnectsALaneTwiceIsRefused) {
  test::Cluster cluster({.hosts = 2});
  ASSERT_EQ(cluster.failure(), "");
  ConnectOptions options;
  options.address = "127.0.0.1";
  options.port = cluster.ports[0].port;
  options.secret = test::some_secret(1);
  options.self = 1;
  options.tag = 1;
  auto extra = connect_stream(options);
  ASSERT_TRUE(extra);
  char byte;
  EXPECT_EQ((*extra)->read_exact(&byte, 1), EPIPE);
  ASSERT_TRUE(cluster.store(1, 1, 4));
  EXPECT_EQ(cluster.load(0, 1), 4u);
}

TEST(Mesh, AMissingHostIsNamed) {
  std::uint16_t port;
  Acceptor::Config config;
  config.listening = test::listen_on_loopback(port);
  config.hosts = 2;
  auto acceptor = Acceptor::start(std::move(config));
  std::uint16_t free_port;
  test::listen_on_loopback(free_port);  // closed again: nobody listens there
  MeshConfig mesh;
  mesh.hosts = {{"alpha", "127.0.0.1", port}, {"beta", "127.0.0.1", free_port}};
  mesh.pages = 10;
  mesh.timeout_ms = 200;
  const auto made = connect_mesh(mesh, **acceptor);
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find("beta"), std::string::npos) << made.error().message;
  EXPECT_NE(made.error().message.find("refused"), std::string::npos) << made.error().message;
}

// A member of the domain (it knows the secret) whose program is broken: host 1 is played by the
// test.
class BrokenMember {
 public:
  BrokenMember() {
    std::uint16_t port;
    for (HostId host = 0; host < 2; ++host) {
      Acceptor::Config config;
      config.listening = test::listen_on_loopback(port);
      config.secret = test::some_secret(1);
      config.self = host;
      config.hosts = 2;
      auto started = Acceptor::start(std::move(config));
      acceptors[host] = std::move(*started);
      mesh.hosts.push_back({host == 0 ? "good" : "broken", "127.0.0.1", port});
    }
    mesh.pages = 64;
    mesh.lanes = 1;
    acceptors[1]->set_handler(kPurposeLane, [this](std::unique_ptr<SecureStream> stream) {
      const std::lock_guard guard(lock_);
      from_good.push_back(std::move(stream));
      return true;
    });
    std::thread good([this] {
      auto made = connect_mesh(mesh, *acceptors[0]);
      if (made) transport = std::move(*made);
    });
    for (std::uint32_t lane = 0; lane < 2; ++lane) {
      ConnectOptions options;
      options.address = "127.0.0.1";
      options.port = mesh.hosts[0].port;
      options.secret = test::some_secret(1);
      options.self = 1;
      options.tag = lane;
      options.timeout_ms = 10000;
      auto made = connect_stream(options);
      if (made) to_good[lane] = std::move(*made);
    }
    good.join();
    EngineConfig config;
    config.hosts = 2;
    config.pages = 64;
    config.names = {"good", "broken"};
    auto made = Engine::create(config, backend, *transport, {});
    engine = std::move(*made);
    server = std::thread([this] { engine->serve(); });
  }
  ~BrokenMember() {
    engine->stop("over");
    server.join();
    for (auto& acceptor : acceptors) acceptor.reset();  // their threads use the other members
  }
  // Sends these bytes on a lane and waits for the engine to give up.
  std::string cause_after(unsigned lane, const void* bytes, std::size_t count) {
    if (to_good[lane]->write_all(bytes, count) != 0) return "not sent";
    char byte;
    if (to_good[lane]->read_exact(&byte, 1) == 0) return "still connected";
    server.join();
    const std::string cause = engine->stop_cause();
    server = std::thread([] {});
    return cause;
  }
  std::string cause_after(unsigned lane, const ivy::Message& message) {
    std::array<std::byte, wire::kMessageBytes> bytes;
    wire::encode(message, 1, bytes.data());
    return cause_after(lane, bytes.data(), bytes.size());
  }

  test::RightsTable rights{2, 64};
  test::MemoryBackend backend{0, 64, rights};
  std::array<std::unique_ptr<Acceptor>, 2> acceptors;
  MeshConfig mesh;
  std::unique_ptr<Transport> transport;
  std::unique_ptr<Engine> engine;
  std::array<std::unique_ptr<SecureStream>, 2> to_good;
  std::vector<std::unique_ptr<SecureStream>> from_good;
  std::thread server;

 private:
  std::mutex lock_;
};

ivy::Message request_for(Gfn gfn) {
  ivy::Message message;
  message.kind = ivy::Kind::kReadRequest;
  message.from = 1;
  message.requester = 1;
  message.lane = 1;
  message.txn = 9;
  message.gfn = gfn;
  return message;
}

TEST(Mesh, GarbageFromAMemberStopsTheDomainWithItsCause) {
  BrokenMember member;
  const std::array<char, 64> garbage{'x'};
  EXPECT_EQ(member.cause_after(1, garbage.data(), garbage.size()),
            "host broken is lost: not a message (wrong magic)");
}

TEST(Mesh, AMessageInAnotherHostsName) {
  BrokenMember member;
  ivy::Message message = request_for(3);
  message.from = 0;
  EXPECT_EQ(member.cause_after(1, message),
            "host broken is lost: it sent a message in another host's name");
}

TEST(Mesh, AMessageOnTheWrongLane) {
  BrokenMember member;
  EXPECT_EQ(member.cause_after(0, request_for(3)),
            "host broken is lost: it sent a message of another lane");
}

TEST(Mesh, APageThatNobodyAskedFor) {
  BrokenMember member;
  ivy::Message message = request_for(3);
  message.kind = ivy::Kind::kGrant;
  message.payload = ivy::Payload::kPage;
  message.right = Right::kShared;
  message.requester = 0;
  EXPECT_EQ(member.cause_after(1, message),
            "host broken is lost: it sent a message in the wrong direction of a lane");
}

TEST(Mesh, AMessageTheProtocolDoesNotAllow) {
  BrokenMember member;
  ivy::Message message = request_for(3);
  message.kind =
      ivy::Kind::kInvalidate;  // of a page that this host owns, from a host that may not manage it
  message.lane = 0;
  const std::string cause = member.cause_after(0, message);
  EXPECT_NE(cause.find("host broken sent host good a kInvalidate for page 3"), std::string::npos)
      << cause;
}

// A host that manages the page it wants asks the page's holder on the lane where it waits for the
// answer; for other hosts it asks on the service lane.
TEST(Mesh, OnALaneAHostAsksForItselfOnly) {
  for (const ivy::Kind kind :
       {ivy::Kind::kReadForward, ivy::Kind::kWriteForward, ivy::Kind::kInvalidate}) {
    BrokenMember for_itself, for_another;
    ivy::Message message = request_for(3);
    message.kind = kind;
    // Whether the page's state allows it is another question.
    const std::string cause = for_itself.cause_after(1, message);
    EXPECT_EQ(cause.find(" lane"), std::string::npos) << cause;
    message.requester = 0;
    EXPECT_EQ(for_another.cause_after(1, message),
              "host broken is lost: it sent a message that belongs on the service lane");
  }
}

// Takes what a connection delivers, pages included.
class Collector final : public Sink {
 public:
  std::byte* place(const ivy::Message&) noexcept override { return frame_.data(); }
  bool deliver(const ivy::Message& message) noexcept override {
    got.emplace_back(message.gfn, message.payload == ivy::Payload::kPage ? frame_ : kNothing);
    return true;
  }
  void flush() noexcept override {}
  void peer_lost(HostId, const char*) noexcept override {}

  using Page = std::array<std::byte, kPageSize>;
  static constexpr Page kNothing{};
  std::vector<std::pair<Gfn, Page>> got;

 private:
  Page frame_;
};

// A run arrives as what it stands for, however many are read at once.
TEST(Connection, RunsAreTakenApart) {
  constexpr wire::Bounds kBounds{3, 4, 1024, 1};
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
  const std::atomic<Epoch> epoch{kBounds.epoch};
  const auto connection = [&](int end, HostId self, bool own) {
    return Connection(std::make_unique<SecureStream>(UniqueFd(end), nullptr, StreamId{}), self,
                      static_cast<HostId>(3 - self), kServiceLane, own, kBounds, epoch);
  };
  Connection requester = connection(ends[0], 2, true), manager = connection(ends[1], 1, false);
  std::vector<Outgoing> messages;
  std::vector<const Outgoing*> together;
  constexpr Gfn kLengths[] = {1, 40, 64, 3};
  ivy::Message message;
  message.kind = ivy::Kind::kReadForward;
  message.from = message.requester = 2;
  message.to = 1;
  for (const Gfn length : kLengths) {
    ++message.version;
    for (Gfn i = 0; i < length; ++i, ++message.gfn, message.txn += 1 << 21 | 1)
      messages.push_back({wire::Run(message), nullptr});
  }
  for (const Outgoing& each : messages) together.push_back(&each);
  constexpr std::size_t kMost = Connection::kMostTogether;
  for (std::size_t at = 0; at < together.size(); at += kMost)
    ASSERT_EQ(requester.send(&together[at], std::min(kMost, together.size() - at)), 0);
  Collector sink;
  const char* why = nullptr;
  while (manager.receive(sink, &why) == Connection::Outcome::kSome) {
  }
  ASSERT_EQ(why, nullptr) << why;
  ASSERT_EQ(sink.got.size(), messages.size());
  for (Gfn gfn = 0; gfn < messages.size(); ++gfn) EXPECT_EQ(sink.got[gfn].first, gfn);
  Transport::Traffic sent{}, received{};
  requester.add_traffic(sent);
  manager.add_traffic(received);
  // The 64 were handed over in two pieces.
  EXPECT_EQ(sent.messages_sent, std::size(kLengths) + 1);
  EXPECT_EQ(received.messages_received, sent.messages_sent);
  EXPECT_EQ(sent.bytes_sent, sent.messages_sent * wire::kMessageBytes);
}

// What becomes a run in the outbox takes the room of one message there, and leaves as one.
TEST(Connection, RunsOfTheOutboxGoTogether) {
  constexpr wire::Bounds kBounds{3, 4, 1024, 1};
  constexpr std::size_t kMessages = 200, kRuns = 4;
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
  const std::atomic<Epoch> epoch{kBounds.epoch};
  Connection requester(std::make_unique<SecureStream>(UniqueFd(ends[0]), nullptr, StreamId{}), 2, 1,
                       kServiceLane, true, kBounds, epoch);
  Connection manager(std::make_unique<SecureStream>(UniqueFd(ends[1]), nullptr, StreamId{}), 1, 2,
                     kServiceLane, false, kBounds, epoch);
  ivy::Message message;
  message.kind = ivy::Kind::kReadRequest;
  message.from = message.requester = 2;
  message.to = 1;
  Outbox outbox;
  for (std::size_t i = 0; i < kMessages; ++i, ++message.gfn, message.txn += 1 << 21 | 1)
    outbox.put(message, nullptr);
  ASSERT_EQ(outbox.size(), kRuns);
  const Outgoing* together[kRuns];
  for (std::size_t i = 0; i < kRuns; ++i) together[i] = outbox.messages() + i;
  ASSERT_EQ(requester.send(together, kRuns), 0);
  Collector sink;
  const char* why = nullptr;
  while (manager.receive(sink, &why) == Connection::Outcome::kSome) {
  }
  ASSERT_EQ(why, nullptr) << why;
  ASSERT_EQ(sink.got.size(), kMessages);
  for (Gfn gfn = 0; gfn < kMessages; ++gfn) EXPECT_EQ(sink.got[gfn].first, gfn);
  Transport::Traffic sent{};
  requester.add_traffic(sent);
  EXPECT_EQ(sent.messages_sent, kRuns);
}

// Pages in rows and messages without a page between them, cut anywhere.
TEST(Connection, StreamsArriveWholeHoweverTheyAreCut) {
  constexpr wire::Bounds kBounds{3, 4, 1024, 1};
  constexpr std::size_t kMessages = 600;
  std::minstd_rand random(7);
  std::vector<std::byte> bytes;
  std::vector<bool> with_page;
  ivy::Message message;
  message.kind = ivy::Kind::kGrant;
  message.from = 2;
  message.to = message.requester = 1;
  message.right = Right::kShared;
  for (std::size_t i = 0; i < kMessages; ++i) {
    const bool page = i % 200 < 100 || random() % 2 == 0;
    message.gfn = i;
    message.payload = page ? ivy::Payload::kPage : ivy::Payload::kZero;
    with_page.push_back(page);
    bytes.resize(bytes.size() + wire::kMessageBytes);
    wire::encode(message, kBounds.epoch, bytes.data() + bytes.size() - wire::kMessageBytes);
    if (page) bytes.insert(bytes.end(), kPageSize, std::byte(i % 251 + 1));
  }
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
  const UniqueFd sender(ends[1]);
  const std::atomic<Epoch> epoch{kBounds.epoch};
  Connection connection(std::make_unique<SecureStream>(UniqueFd(ends[0]), nullptr, StreamId{}), 1,
                        2, kServiceLane, true, kBounds, epoch);
  Collector sink;
  const char* why = nullptr;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t most = random() % 4 == 0 ? 100 : 100'000;
    const ssize_t sent = ::write(sender.get(), &bytes[at],
                                 std::min<std::size_t>(random() % most + 1, bytes.size() - at));
    if (sent > 0) at += static_cast<std::size_t>(sent);
    while (connection.receive(sink, &why) == Connection::Outcome::kSome) {
    }
    ASSERT_EQ(why, nullptr) << why;
  }
  ASSERT_EQ(sink.got.size(), kMessages);
  for (std::size_t i = 0; i < kMessages; ++i) {
    EXPECT_EQ(sink.got[i].first, i);
    Collector::Page expected{};
    if (with_page[i]) expected.fill(std::byte(i % 251 + 1));
    EXPECT_TRUE(sink.got[i].second == expected) << i;
  }
}

}  // namespace
}  // namespace xenspan::dsm::tcp
