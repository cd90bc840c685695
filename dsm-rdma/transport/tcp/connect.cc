// connect_stream(): the connecting side of the handshake.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/own_descriptors.h"
#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/transport/tcp/handshake.h"
#include "dsm-rdma/transport/tcp/secure_stream.h"

namespace xenspan::dsm::tcp {
namespace {

constexpr int kRetryMs = 20;  // between tries while the peer's slice is starting

struct Deadline {
  std::uint64_t at_ns;
  int left_ms() const {
    const std::uint64_t now = now_ns();
    return now >= at_ns ? 0 : static_cast<int>((at_ns - now + 999'999) / 1'000'000);
  }
};

// 0 when ready, or an errno.
int wait_for(int fd, short events, const Deadline& deadline) {
  pollfd ready{fd, events, 0};
  for (;;) {
    const int left = deadline.left_ms();
    const int count = left > 0 ? ::poll(&ready, 1, left) : 0;
    if (count > 0) return 0;
    if (count == 0) return ETIMEDOUT;
    if (errno != EINTR) return errno;
  }
}

int send_exact(int fd, const std::uint8_t* from, std::size_t bytes, const Deadline& deadline) {
  while (bytes > 0) {
    const ssize_t sent = ::send(fd, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) {
      from += sent, bytes -= static_cast<std::size_t>(sent);
      continue;
    }
    if (errno != EAGAIN && errno != EINTR) return errno;
    if (const int error = wait_for(fd, POLLOUT, deadline)) return error;
  }
  return 0;
}

int receive_exact(int fd, std::uint8_t* to, std::size_t bytes, const Deadline& deadline) {
  while (bytes > 0) {
    const ssize_t got = ::recv(fd, to, bytes, MSG_DONTWAIT);
    if (got == 0) return EPIPE;
    if (got > 0) {
      to += got, bytes -= static_cast<std::size_t>(got);
      continue;
    }
    if (errno != EAGAIN && errno != EINTR) return errno;
    if (const int error = wait_for(fd, POLLIN, deadline)) return error;
  }
  return 0;
}

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};

// The socket's file status flags: blocking again, as SecureStream expects.
void make_blocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK); }

// A connected socket, or an errno.
int connect_socket(const addrinfo& to, const Deadline& deadline, UniqueFd& made) {
  UniqueFd fd = own_descriptor(
      UniqueFd(::socket(to.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
  if (!fd) return errno;
  const int on = 1;
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(fd.get(), to.ai_addr, to.ai_addrlen) < 0) {
    if (errno != EINPROGRESS) return errno;
    if (const int error = wait_for(fd.get(), POLLOUT, deadline)) return error;
    int error = 0;
    socklen_t bytes = sizeof error;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &bytes);
    if (error != 0) return error;
  }
  made = std::move(fd);
  return 0;
}

// One try. `again` says whether a later one may go better.
struct Failure {
  int code;
  std::string text;
  bool again;
};

struct Attempt {
  const ConnectOptions& options;
  const Deadline& deadline;
  StreamId id;
  UniqueFd fd;
  ssl_st* ssl = nullptr;

  Failure at(int error, const char* step) const {
    // A closed connection is what a peer that is busy, restarting or full looks like.
    return {error, fmt::format("{}: {}", step, std::strerror(error)), error != ETIMEDOUT};
  }
  bool authenticate(handshake::Hello& hello, handshake::Challenge& challenge, Failure& failure) {
    hello = handshake::make_hello(id);
    if (const int error = send_exact(fd.get(), hello.data(), hello.size(), deadline)) {
      return failure = at(error, "greeting"), false;
    }
    if (const int error = receive_exact(fd.get(), challenge.data(), challenge.size(), deadline)) {
      return failure = at(error, "waiting for its answer"), false;
    }
    if (const char* wrong = handshake::check_challenge(options.secret, hello, challenge)) {
      return failure = {EACCES, wrong, false}, false;
    }
    const handshake::Proof proof = handshake::make_proof(options.secret, hello, challenge);
    if (const int error = send_exact(fd.get(), proof.data(), proof.size(), deadline)) {
      return failure = at(error, "proving"), false;
    }
    return true;
  }
  bool hear_verdict(Failure& failure) {
    handshake::Verdict verdict;
    handshake::Code code;
    if (const int error = receive_exact(fd.get(), verdict.data(), verdict.size(), deadline)) {
      return failure = at(error, "waiting to be accepted"), false;
    }
    if (!handshake::read_verdict(verdict, code))
      return failure = {EPROTO, "its verdict is malformed", false}, false;
    if (code == handshake::Code::kAccepted) return true;
    const int error = code == handshake::Code::kWrongEpoch ? ESTALE : EACCES;
    return failure = {error, handshake::text_of(code), code == handshake::Code::kNotReady}, false;
  }
  bool start_tls(const handshake::Hello& hello, const handshake::Challenge& challenge,
                 Failure& failure) {
    ssl = handshake::make_tls(fd.get(), false, options.secret, hello, challenge);
    if (ssl == nullptr) return failure = {ENOMEM, "OpenSSL cannot set up TLS 1.3", false}, false;
    for (;;) {
      const int events = handshake::step_tls(ssl);
      if (events == 0) return true;
      int error = events < 0 ? EPROTO : wait_for(fd.get(), static_cast<short>(events), deadline);
      if (error != 0) {
        handshake::free_tls(ssl);
        ssl = nullptr;
        return failure = at(error, "TLS"), false;
      }
    }
  }
  bool run(const addrinfo& to, Failure& failure) {
    if (const int error = connect_socket(to, deadline, fd))
      return failure = at(error, "connecting"), false;
    handshake::Hello hello;
    handshake::Challenge challenge;
    if (!authenticate(hello, challenge, failure) || !hear_verdict(failure)) return false;
    if (options.encrypt && !start_tls(hello, challenge, failure)) return false;
    make_blocking(fd.get());
    return true;
  }
};

}  // namespace

Result<std::unique_ptr<SecureStream>> connect_stream(const ConnectOptions& options) {
  const std::string target =
      fmt::format("host {} at {} port {}", options.peer, options.address, options.port);
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(options.address.c_str(), std::to_string(options.port).c_str(),
                                      &hints, &found)) {
    return Error{EINVAL, fmt::format("{}: {}: give a numeric IPv4 or IPv6 address", target,
                                     ::gai_strerror(error))};
  }
  const std::unique_ptr<addrinfo, FreeAddresses> addresses(found);
  const Deadline deadline{now_ns() +
                          static_cast<std::uint64_t>(std::max(options.timeout_ms, 0)) * 1'000'000};
  const StreamId id{options.self,    options.peer, options.epoch,
                    options.purpose, options.tag,  options.encrypt};
  Failure failure{ETIMEDOUT, "no time to connect", false}, reason = failure;
  for (;;) {
    Attempt attempt{options, deadline, id, {}, nullptr};
    if (attempt.run(*addresses, failure)) {
      return std::make_unique<SecureStream>(std::move(attempt.fd), attempt.ssl, id);
    }
    // When time runs out in the middle of a try, what went wrong before says more.
    if (failure.code != ETIMEDOUT || reason.code == ETIMEDOUT) reason = failure;
    if (!failure.again || deadline.left_ms() <= kRetryMs) break;
    const timespec pause{0, kRetryMs * 1'000'000};
    ::nanosleep(&pause, nullptr);
  }
  return Error{reason.code, fmt::format("{}: {}", target, reason.text)};
}

}  // namespace xenspan::dsm::tcp
