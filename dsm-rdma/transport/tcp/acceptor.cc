// Acceptor: one thread, one epoll set, a small state per connection that has not proved itself yet.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <thread>

#include "base/own_descriptors.h"
#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/transport/tcp/handshake.h"
#include "dsm-rdma/transport/tcp/secure_stream.h"

namespace xenspan::dsm::tcp {
namespace {

std::string peer_text(const sockaddr_storage& from) {
  char text[INET6_ADDRSTRLEN] = "?";
  unsigned port = 0;
  if (from.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(from);
    ::inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    port = ntohs(v4.sin_port);
  } else if (from.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(from);
    ::inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    port = ntohs(v6.sin6_port);
  }
  return fmt::format("{} port {}", text, port);
}

// A connection on its way to being a stream.
struct HalfOpen {
  enum class State { kHello, kProof, kTls };
  UniqueFd fd;
  std::string peer;
  std::uint64_t deadline_ns = 0;
  State state = State::kHello;
  handshake::Hello hello{};
  handshake::Challenge challenge{};
  handshake::Proof proof{};
  std::size_t got = 0;
  StreamId id;
  ssl_st* ssl = nullptr;

  HalfOpen() = default;
  HalfOpen(const HalfOpen&) = delete;
  ~HalfOpen() { handshake::free_tls(ssl); }
};

}  // namespace

struct Acceptor::Impl {
  Config config;
  std::atomic<Epoch> epoch{1};
  UniqueFd epoll, wake;
  std::mutex
      handlers_lock;  // also held while a handler runs, so that set_handler() returns after it
  std::map<std::uint8_t, Handler> handlers;
  std::list<HalfOpen> half_open;  // oldest first
  bool ending = false;            // the thread's own
  std::thread thread;

  enum class Next { kWait, kGone };

  void log(const HalfOpen& connection, const std::string& why) const {
    if (config.log) config.log(fmt::format("connection from {} closed: {}", connection.peer, why));
  }
  void run();
  void accept_all();
  void expire();
  int timeout_ms() const;
  void step(std::list<HalfOpen>::iterator connection);
  Next advance(HalfOpen& connection);
  bool receive(HalfOpen& connection, std::uint8_t* to, std::size_t bytes, Next& next);
  Next on_hello(HalfOpen& connection);
  Next on_proof(HalfOpen& connection);
  Next on_tls(HalfOpen& connection);
  Next hand_over(HalfOpen& connection);
  handshake::Code judge(const StreamId& id);
  bool answer(HalfOpen& connection, const std::uint8_t* from, std::size_t bytes);
};

// A few bytes into an empty socket buffer: it takes all of them or the connection is not worth
// keeping.
bool Acceptor::Impl::answer(HalfOpen& connection, const std::uint8_t* from, std::size_t bytes) {
  return ::send(connection.fd.get(), from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) ==
         static_cast<ssize_t>(bytes);
}

// True when all bytes are there; otherwise `next` says what becomes of the connection.
bool Acceptor::Impl::receive(HalfOpen& connection, std::uint8_t* to, std::size_t bytes,
                             Next& next) {
  const ssize_t got =
      ::recv(connection.fd.get(), to + connection.got, bytes - connection.got, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return next = Next::kWait, false;
  if (got <= 0) {
    log(connection, got == 0 ? "it ended before it had proved anything" : std::strerror(errno));
    return next = Next::kGone, false;
  }
  connection.got += static_cast<std::size_t>(got);
  if (connection.got < bytes) return next = Next::kWait, false;
  connection.got = 0;
  return true;
}

Acceptor::Impl::Next Acceptor::Impl::on_hello(HalfOpen& connection) {
  Next next;
  if (!receive(connection, connection.hello.data(), connection.hello.size(), next)) return next;
  if (const char* wrong = handshake::read_hello(connection.hello, connection.id)) {
    if (wrong == handshake::kOtherVersion) {
      const handshake::Challenge ours = handshake::version_challenge();
      answer(connection, ours.data(), ours.size());
    }
    log(connection, wrong);
    return Next::kGone;
  }
  connection.challenge = handshake::make_challenge(config.secret, connection.hello);
  if (!answer(connection, connection.challenge.data(), connection.challenge.size()))
    return Next::kGone;
  connection.state = HalfOpen::State::kProof;
  return Next::kWait;
}

handshake::Code Acceptor::Impl::judge(const StreamId& id) {
  if (id.to != config.self || id.from >= config.hosts || id.from == config.self)
    return handshake::Code::kWrongHost;
  if (id.epoch != epoch.load()) return handshake::Code::kWrongEpoch;
  if (id.encrypted != config.encrypt) return handshake::Code::kWrongEncryption;
  const std::lock_guard guard(handlers_lock);
  return handlers.count(id.purpose) != 0 ? handshake::Code::kAccepted : handshake::Code::kNotReady;
}

Acceptor::Impl::Next Acceptor::Impl::on_proof(HalfOpen& connection) {
  Next next;
  if (!receive(connection, connection.proof.data(), connection.proof.size(), next)) return next;
  if (!handshake::check_proof(config.secret, connection.hello, connection.challenge,
                              connection.proof)) {
    log(connection, "it does not know the domain's secret");
    return Next::kGone;
  }
  const handshake::Code code = judge(connection.id);
  const handshake::Verdict verdict = handshake::make_verdict(code);
  const bool told = answer(connection, verdict.data(), verdict.size());
  if (code != handshake::Code::kAccepted) {
    // "Not ready" is how peers wait for each other at start: nothing to report.
    if (code != handshake::Code::kNotReady) {
      log(connection,
          fmt::format("host {} is refused: {}", connection.id.from, handshake::text_of(code)));
    }
    return Next::kGone;
  }
  if (!told) return Next::kGone;
  if (!config.encrypt) return hand_over(connection);
  connection.ssl = handshake::make_tls(connection.fd.get(), true, config.secret, connection.hello,
                                       connection.challenge);
  if (connection.ssl == nullptr) {
    log(connection, "OpenSSL cannot set up TLS 1.3");
    return Next::kGone;
  }
  connection.state = HalfOpen::State::kTls;
  return Next::kWait;
}

Acceptor::Impl::Next Acceptor::Impl::on_tls(HalfOpen& connection) {
  const int events = handshake::step_tls(connection.ssl);
  if (events == 0) return hand_over(connection);
  if (events == POLLIN) return Next::kWait;
  log(connection,
      "TLS failed");  // POLLOUT: a handshake's few bytes did not fit, the peer does not read
  return Next::kGone;
}

Acceptor::Impl::Next Acceptor::Impl::hand_over(HalfOpen& connection) {
  ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, connection.fd.get(), nullptr);
  auto stream = std::make_unique<SecureStream>(
      std::move(connection.fd), std::exchange(connection.ssl, nullptr), connection.id);
  const std::lock_guard guard(handlers_lock);
  const auto handler = handlers.find(connection.id.purpose);
  if (handler == handlers.end() || !handler->second(std::move(stream))) {
    log(connection, fmt::format("host {}'s connection (purpose {}, tag {}) is not wanted",
                                connection.id.from, connection.id.purpose, connection.id.tag));
  }
  return Next::kGone;
}

Acceptor::Impl::Next Acceptor::Impl::advance(HalfOpen& connection) {
  switch (connection.state) {
    case HalfOpen::State::kHello: return on_hello(connection);
    case HalfOpen::State::kProof: return on_proof(connection);
    case HalfOpen::State::kTls: return on_tls(connection);
  }
  return Next::kGone;
}

void Acceptor::Impl::step(std::list<HalfOpen>::iterator connection) {
  if (advance(*connection) == Next::kGone) half_open.erase(connection);
}

void Acceptor::Impl::accept_all() {
  for (;;) {
    sockaddr_storage from{};
    socklen_t bytes = sizeof from;
    UniqueFd fd = own_descriptor(UniqueFd(::accept4(
        config.listening.get(), reinterpret_cast<sockaddr*>(&from), &bytes, SOCK_CLOEXEC)));
    if (!fd) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EAGAIN) return;
      // Out of descriptors or memory: what is half open gives way, and the next round tries again.
      if (!half_open.empty()) half_open.pop_front();
      const timespec pause{0, 10'000'000};
      ::nanosleep(&pause, nullptr);
      return;
    }
    if (half_open.size() >= config.half_open_limit) {
      log(half_open.front(), "too many connections have not proved themselves");
      half_open.pop_front();
    }
    const int on = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    HalfOpen& added = half_open.emplace_back();
    added.fd = std::move(fd);
    added.peer = peer_text(from);
    added.deadline_ns =
        now_ns() + static_cast<std::uint64_t>(config.handshake_timeout_ms) * 1'000'000;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = added.fd.get();
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, added.fd.get(), &event) < 0) half_open.pop_back();
  }
}

void Acceptor::Impl::expire() {
  const std::uint64_t now = now_ns();
  while (!half_open.empty() && half_open.front().deadline_ns <= now) {
    log(half_open.front(), "it took too long to prove itself");
    half_open.pop_front();
  }
}

int Acceptor::Impl::timeout_ms() const {
  if (half_open.empty()) return -1;
  const std::uint64_t now = now_ns(), until = half_open.front().deadline_ns;
  return until <= now ? 0 : static_cast<int>((until - now) / 1'000'000 + 1);
}

void Acceptor::Impl::run() {
  while (!ending) {
    epoll_event events[32];
    const int count = ::epoll_wait(epoll.get(), events, 32, timeout_ms());
    bool listening = false;
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == wake.get()) {
        ending = true;
      } else if (fd == config.listening.get()) {
        listening = true;
      } else {
        const auto found = std::find_if(half_open.begin(), half_open.end(),
                                        [fd](const HalfOpen& each) { return each.fd.get() == fd; });
        if (found != half_open.end()) step(found);
      }
    }
    expire();
    // After the others: a descriptor number that was closed above may come back here.
    if (listening && !ending) accept_all();
  }
}

Acceptor::Acceptor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Acceptor::~Acceptor() {
  const std::uint64_t one = 1;
  if (::write(impl_->wake.get(), &one, sizeof one) < 0) {
    // An eventfd takes a one unless it is full, and then it wakes its reader anyway.
  }
  impl_->thread.join();
}

Result<std::unique_ptr<Acceptor>> Acceptor::start(Config config) {
  auto impl = std::make_unique<Impl>();
  impl->config = std::move(config);
  impl->epoch = impl->config.epoch;
  impl->config.half_open_limit = std::max(impl->config.half_open_limit, 1u);
  impl->epoll.reset(::epoll_create1(EPOLL_CLOEXEC));
  impl->wake.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!impl->epoll || !impl->wake) return system_error(errno, "cannot set up the listening thread");
  const int listening = impl->config.listening.get();
  if (::fcntl(listening, F_SETFL, ::fcntl(listening, F_GETFL) | O_NONBLOCK) < 0) {
    return system_error(errno, "cannot use the listening socket");
  }
  for (const int fd : {listening, impl->wake.get()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (::epoll_ctl(impl->epoll.get(), EPOLL_CTL_ADD, fd, &event) < 0) {
      return system_error(errno, "cannot watch the listening socket");
    }
  }
  // Signals are for the threads that run the guest, except faults of its own: blocked, they would
  // end the process without a word.
  sigset_t all, before;
  ::sigfillset(&all);
  for (const int own : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT}) ::sigdelset(&all, own);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  impl->thread = std::thread([raw = impl.get()] { raw->run(); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return std::unique_ptr<Acceptor>(new Acceptor(std::move(impl)));
}

void Acceptor::set_handler(std::uint8_t purpose, Handler handler) {
  const std::lock_guard guard(impl_->handlers_lock);
  if (handler) {
    impl_->handlers[purpose] = std::move(handler);
  } else {
    impl_->handlers.erase(purpose);
  }
}

const Secret& Acceptor::secret() const { return impl_->config.secret; }
HostId Acceptor::self() const { return impl_->config.self; }
unsigned Acceptor::hosts() const { return impl_->config.hosts; }
Epoch Acceptor::epoch() const { return impl_->epoch.load(); }
void Acceptor::enter_epoch(Epoch epoch) { impl_->epoch = epoch; }
bool Acceptor::encrypt() const { return impl_->config.encrypt; }

}  // namespace xenspan::dsm::tcp
