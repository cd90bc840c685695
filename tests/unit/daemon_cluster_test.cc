// Hosts that meet over real TLS connections on the loopback interface: who is let in, who is not,
// and who is lost.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ctime>
#include <functional>
#include <memory>
#include <vector>

#include "dom0-daemon/daemon/cluster.h"
#include "tests/unit/free_port.h"

namespace {
time_t seconds_later = 0;
}
// In the place of libc's for the whole program, OpenSSL included: hours can pass in a test.
extern "C" time_t time(time_t* result) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const time_t later = now.tv_sec + seconds_later;
  if (result != nullptr) *result = later;
  return later;
}

namespace xenspan::daemon {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

ClusterKey key_of(unsigned char byte) {
  ClusterKey key;
  key.bytes.fill(byte);
  return key;
}

// One host's end of the cluster, and what it was told.
class Host : public Cluster::Handler {
 public:
  Host(EventLoop& loop, const std::string& name, std::uint16_t port, unsigned char key = 1)
      : loop_(loop), key_(key) {
    config_.name = name;
    config_.port = port;
    config_.lost_after = seconds(1);
  }
  Host& knows(const Host& other) {
    config_.peers.push_back({other.config_.name, "127.0.0.1", other.config_.port});
    return *this;
  }
  void start() {
    auto tls = TlsContext::make(key_of(key_));
    ASSERT_TRUE(tls.ok()) << tls.error().message;
    cluster = std::make_unique<Cluster>(loop_, std::move(*tls), config_, *this);
    HostRecord record;
    record.name = config_.name;
    record.address = "127.0.0.1";
    record.port = config_.port;
    record.version = "test";
    record.cores = {0};
    record.core_use = {0};
    cluster->set_record(record);
    const Status started = cluster->start();
    ASSERT_TRUE(started.ok()) << started.error().message;
  }
  bool sees(const std::string& name) const {
    const auto found = cluster->peers().find(name);
    return found != cluster->peers().end() && found->second.state == HostState::kActive;
  }
  std::string error(const std::string& name) const { return cluster->peers().at(name).error; }
  std::uint16_t port() const { return config_.port; }

  void host_joined(const HostRecord& record) override { joined.push_back(record.name); }
  void host_changed(const HostRecord&) override {}
  void host_lost(const std::string& name, const std::string& cause) override {
    lost.push_back(name + ": " + cause);
  }
  void host_message(const std::string& name, Json message) override {
    messages.push_back(name + ": " + text_or(message, "op", ""));
  }

  std::unique_ptr<Cluster> cluster;
  std::vector<std::string> joined, lost, messages;

 private:
  EventLoop& loop_;
  Config config_;
  unsigned char key_;
};

class ClusterTest : public testing::Test {
 protected:
  // Runs the loop until `done`, or gives up.
  bool run_until(const std::function<bool()>& done, milliseconds limit = seconds(20)) {
    bool late = false;
    const Timer check(
        loop_, milliseconds(5),
        [&] {
          if (done()) loop_.stop();
        },
        true);
    const Timer end(loop_, limit, [&] {
      late = true;
      loop_.stop();
    });
    loop_.run();
    return !late;
  }

  EventLoop loop_;
};

TEST_F(ClusterTest, TwoHostsThatBothDialShareOneConnection) {
  Host a(loop_, "a", free_port()), b(loop_, "b", free_port());
  a.knows(b), b.knows(a);
  a.start(), b.start();
  ASSERT_TRUE(run_until([&] { return a.sees("b") && b.sees("a"); }));
  // Crossing dials must not make and lose a second one.
  run_until([] { return false; }, milliseconds(1500));
  EXPECT_EQ(a.joined, std::vector<std::string>{"b"});
  EXPECT_EQ(b.joined, std::vector<std::string>{"a"});
  EXPECT_TRUE(a.lost.empty() && b.lost.empty());
  EXPECT_TRUE(a.cluster->send("b", {{"op", "hello-there"}}));
  ASSERT_TRUE(run_until([&] { return !b.messages.empty(); }));
  EXPECT_EQ(b.messages.front(), "a: hello-there");
  EXPECT_FALSE(a.cluster->send("c", {{"op", "x"}}));
}

TEST_F(ClusterTest, ADaemonThatHasRunForLongStillLetsHostsIn) {
  Host a(loop_, "a", free_port()), b(loop_, "b", free_port()), c(loop_, "c", free_port());
  b.knows(a), c.knows(a);
  a.start(), b.start();
  ASSERT_TRUE(run_until([&] { return a.sees("b"); }));
  seconds_later += 24 * 3600;
  c.start();
  EXPECT_TRUE(run_until([&] { return c.sees("a"); })) << c.error("a");
}

TEST_F(ClusterTest, PeersOfPeersAreLearned) {
  Host a(loop_, "a", free_port()), b(loop_, "b", free_port()), c(loop_, "c", free_port());
  b.knows(a), c.knows(a);
  a.start(), b.start();
  ASSERT_TRUE(run_until([&] { return a.sees("b"); }));
  c.start();
  EXPECT_TRUE(run_until([&] { return b.sees("c") && c.sees("b") && c.sees("a"); }));
}

TEST_F(ClusterTest, AnotherKeyIsRefusedAndBothSidesSayWhy) {
  Host a(loop_, "a", free_port(), 1), b(loop_, "b", free_port(), 2);
  b.knows(a);
  a.start(), b.start();
  ASSERT_TRUE(run_until([&] { return b.error("a").find("cluster key") != std::string::npos; }));
  EXPECT_TRUE(a.joined.empty() && b.joined.empty());
  EXPECT_TRUE(a.cluster->peers().empty());
}

TEST_F(ClusterTest, TwoHostsOfOneNameAreRefused) {
  Host a(loop_, "a", free_port()), b(loop_, "b", free_port()), impostor(loop_, "a", free_port());
  impostor.knows(b);
  b.knows(a);
  a.start(), b.start();
  ASSERT_TRUE(run_until([&] { return b.sees("a"); }));
  impostor.start();
  // A second daemon named a takes the place of the first, which then is refused or replaces it
  // again: never both.
  ASSERT_TRUE(run_until([&] { return impostor.sees("b"); }));
  EXPECT_TRUE(run_until([&] { return !a.sees("b"); }));
}

TEST_F(ClusterTest, ALostHostIsReportedAndFoundAgain) {
  Host a(loop_, "a", free_port());
  const std::uint16_t port = free_port();
  auto b = std::make_unique<Host>(loop_, "b", port);
  a.knows(*b);
  a.start(), b->start();
  ASSERT_TRUE(run_until([&] { return a.sees("b"); }));
  b.reset();
  ASSERT_TRUE(run_until([&] { return !a.lost.empty(); }));
  EXPECT_EQ(a.lost.front().rfind("b: ", 0), 0u);
  b = std::make_unique<Host>(loop_, "b", port);
  b->start();
  EXPECT_TRUE(run_until([&] { return a.sees("b"); }));
  b->cluster->leave();
  ASSERT_TRUE(run_until([&] { return a.lost.size() == 2; }));
  EXPECT_EQ(a.lost.back(), "b: its xenspand was stopped");
}

// A peer that holds the key, yet says something else than a host of this version.
class OddPeer : public PeerLink::Handler {
 public:
  OddPeer(EventLoop& loop, std::uint16_t port, Json first) : first_(std::move(first)) {
    auto tls = TlsContext::make(key_of(1));
    tls_ = std::move(*tls);
    link_ = std::make_unique<PeerLink>(loop, *tls_, *this, PeerAddress{"x", "127.0.0.1", port});
  }
  void link_open(PeerLink& link) override { link.send(first_); }
  void link_message(PeerLink&, Json message) override { answer = std::move(message); }
  void link_closed(PeerLink&, const std::string&) override { closed = true; }

  Json answer;
  bool closed = false;

 private:
  Json first_;
  std::unique_ptr<TlsContext> tls_;
  std::unique_ptr<PeerLink> link_;
};

TEST_F(ClusterTest, AnotherProtocolVersionIsRefusedNamingBoth) {
  Host a(loop_, "a", free_port());
  a.start();
  OddPeer odd(loop_, a.port(),
              {{"op", "hello"}, {"protocol", 99}, {"version", "9.9"}, {"host", {{"name", "z"}}}});
  ASSERT_TRUE(run_until([&] { return odd.closed; }));
  EXPECT_EQ(text_or(odd.answer, "op", ""), "refused");
  const std::string error = text_or(odd.answer, "error", "");
  for (const char* word : {"host z", "99", "9.9", "host a", "version 1"})
    EXPECT_NE(error.find(word), std::string::npos) << error;
  EXPECT_TRUE(a.cluster->peers().empty());
}

TEST_F(ClusterTest, MalformedGreetingsChangeNothing) {
  Host a(loop_, "a", free_port());
  a.start();
  const Json greetings[] = {
      {{"op", "beat"}},
      {{"op", "slice-create"}, {"uuid", "x"}},
      {{"op", "hello"}, {"protocol", 1}},
      {{"op", "hello"}, {"protocol", 1}, {"host", {{"name", "b"}}}},
      {{"op", "welcome"}, {"protocol", 1}},
      Json::object(),
  };
  for (const Json& greeting : greetings) {
    OddPeer odd(loop_, a.port(), greeting);
    ASSERT_TRUE(run_until([&] { return odd.closed; })) << greeting;
  }
  EXPECT_TRUE(a.cluster->peers().empty());
  EXPECT_TRUE(a.messages.empty());
  Host b(loop_, "b", free_port());
  b.knows(a);
  b.start();
  EXPECT_TRUE(run_until([&] { return a.sees("b"); }));
}

TEST_F(ClusterTest, AConnectionThatSaysNothingIsDropped) {
  Host a(loop_, "a", free_port());
  a.start();
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(a.port());
  ASSERT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  fcntl(fd.get(), F_SETFL, O_NONBLOCK);
  char byte;
  // 0: the other end closed; -1 with ECONNRESET likewise.
  EXPECT_TRUE(run_until([&] { return recv(fd.get(), &byte, 1, 0) == 0 || (errno != EAGAIN); }));
}

}  // namespace
}  // namespace xenspan::daemon
