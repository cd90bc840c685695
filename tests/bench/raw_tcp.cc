#include "tests/bench/raw_tcp.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

namespace xenspan::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kRequestBytes = 64;
constexpr std::size_t kBufferBytes = 64 << 10;  // a longer answer is its contents again and again
constexpr std::uint32_t kEnd = 0;               // an answer length that ends the server

using Buffer = std::array<std::byte, kBufferBytes>;

// Moves the calling thread to a namespace and a core.
Status settle(const std::string& netns, int core) {
  const std::string path = "/run/netns/" + netns;
  const UniqueFd space(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!space || ::setns(space.get(), CLONE_NEWNET) != 0) {
    return system_error(errno, "cannot enter " + path, "run as root, with a test bed up");
  }
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(core), &set);
  if (::sched_setaffinity(0, sizeof set, &set) != 0) {
    return system_error(errno, "cannot run on core " + std::to_string(core));
  }
  return {};
}

// Looks for as long as its patience lasts, then sleeps in epoll until there is something to read.
class Waiter {
 public:
  Waiter(int socket, const dsm::PatienceLimits& patience) : socket_(socket), patience_(patience) {
    epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket, &event);
  }
  bool receive(Buffer& to, std::size_t bytes) {
    dsm::Patience patience(patience_);
    while (bytes > 0) {
      const ssize_t got = ::recv(socket_, to.data(), std::min(bytes, to.size()), MSG_DONTWAIT);
      if (got > 0) {
        bytes -= static_cast<std::size_t>(got);
      } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        return false;
      } else if (!patience.look_again()) {
        epoll_event event;
        ::epoll_wait(epoll_.get(), &event, 1, -1);
        patience.restart();
      }
    }
    return true;
  }

 private:
  int socket_;
  const dsm::PatienceLimits patience_;
  UniqueFd epoll_;
};

bool send_all(int socket, const Buffer& from, std::size_t bytes) {
  while (bytes > 0) {
    const ssize_t sent = ::send(socket, from.data(), std::min(bytes, from.size()), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes -= static_cast<std::size_t>(sent);
  }
  return true;
}

void no_delay(int socket) {
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

sockaddr_in address_of(const std::string& text, std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  ::inet_pton(AF_INET, text.c_str(), &address.sin_addr);
  return address;
}

// The server process: each request says how long its answer shall be.
void answer(int socket, unsigned spin_us) {
  Waiter waiter(socket, {spin_us, 0});
  Buffer request{}, reply{};
  for (;;) {
    std::uint32_t bytes = kEnd;
    if (!waiter.receive(request, kRequestBytes)) return;
    std::memcpy(&bytes, request.data(), sizeof bytes);
    if (bytes == kEnd || bytes > RawTcp::kMostAnswer || !send_all(socket, reply, bytes)) return;
  }
}

[[noreturn]] void be_server(const RawEnd& end, const WaitingPolicy& policy, int report) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::uint16_t port = 0;
  if (!settle(end.netns, end.core)) _exit(1);
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = address_of(end.address, 0);
  socklen_t size = sizeof address;
  if (::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::listen(listener.get(), 1) != 0 ||
      ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    _exit(1);
  }
  port = ntohs(address.sin_port);
  if (::write(report, &port, sizeof port) != sizeof port) _exit(1);
  const UniqueFd connection(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!connection) _exit(1);
  no_delay(connection.get());
  if (policy.server_priority > 0) {
    sched_param parameters{};
    parameters.sched_priority = policy.server_priority;
    if (::sched_setscheduler(0, SCHED_FIFO, &parameters) != 0) _exit(1);
  }
  answer(connection.get(), policy.server_spin_us);
  _exit(0);
}

}  // namespace

Result<RawTcp> RawTcp::start(const RawEnd& client, const RawEnd& server,
                             const WaitingPolicy& policy) {
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0) return system_error(errno, "cannot make a pipe");
  UniqueFd from_server(report[0]), to_parent(report[1]);
  RawTcp raw;
  raw.core_ = client.core;
  raw.patience_ = policy.client;
  raw.server_ = ::fork();
  if (raw.server_ < 0) return system_error(errno, "cannot start the TCP server");
  if (raw.server_ == 0) be_server(server, policy, to_parent.get());
  to_parent.reset();
  std::uint16_t port = 0;
  if (::read(from_server.get(), &port, sizeof port) != sizeof port) {
    return Error{0, "the TCP server did not start in namespace " + server.netns +
                        ": run as root, with a test bed up"};
  }
  // A socket stays in the namespace it was made in, so only a short-lived thread has to go there.
  Status entered;
  int connected = -1;
  std::thread([&] {
    entered = settle(client.netns, client.core);
    if (!entered) return;
    raw.socket_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in address = address_of(server.address, port);
    connected =
        ::connect(raw.socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }).join();
  if (!entered) return entered.error();
  if (connected != 0) return system_error(errno, "cannot connect to " + server.address);
  no_delay(raw.socket_.get());
  return raw;
}

RawTcp::RawTcp(RawTcp&& other) noexcept
    : server_(std::exchange(other.server_, -1)),
      socket_(std::move(other.socket_)),
      core_(other.core_),
      patience_(other.patience_) {}

RawTcp::~RawTcp() {
  if (server_ < 0) return;
  ::kill(server_, SIGKILL);
  ::waitpid(server_, nullptr, 0);
}

Result<std::vector<double>> RawTcp::round_trips(std::size_t count, std::size_t answer_bytes) {
  std::vector<double> samples;
  samples.reserve(count);
  std::thread([&] {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<std::size_t>(core_), &set);
    ::sched_setaffinity(0, sizeof set, &set);
    Waiter waiter(socket_.get(), patience_);
    Buffer request{}, reply{};
    const std::uint32_t bytes = static_cast<std::uint32_t>(answer_bytes);
    std::memcpy(request.data(), &bytes, sizeof bytes);
    for (std::size_t i = 0; i < count; i++) {
      const Clock::time_point start = Clock::now();
      if (!send_all(socket_.get(), request, kRequestBytes)) return;
      if (!waiter.receive(reply, answer_bytes)) return;
      samples.push_back(std::chrono::duration<double, std::nano>(Clock::now() - start).count());
    }
  }).join();
  if (samples.size() != count) return Error{0, "the TCP server went away"};
  return samples;
}

}  // namespace xenspan::bench
