#include "dom0-daemon/daemon/peer_link.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <new>

#include "base/log.h"

namespace xenspan::daemon {
namespace {

// A peer that leaves this much unread is not reading.
constexpr std::size_t kMaxQueued = 64 << 20;
constexpr int kOptions = BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS;

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

SocketAddress socket_address(const PeerAddress& peer) {
  SocketAddress address;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (inet_pton(AF_INET, peer.address.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(peer.port);
    address.length = sizeof *v4;
  } else if (inet_pton(AF_INET6, peer.address.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(peer.port);
    address.length = sizeof *v6;
  }
  return address;
}

void set_no_delay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

std::string address_text(const std::string& address, std::uint16_t port) {
  return address.find(':') == std::string::npos ? fmt::format("{}:{}", address, port)
                                                : fmt::format("[{}]:{}", address, port);
}

PeerLink::PeerLink(EventLoop& loop, TlsContext& tls, Handler& handler, UniqueFd accepted,
                   std::string remote)
    : loop_(loop), tls_(tls), handler_(handler), dialed_(false), remote_(std::move(remote)) {
  set_no_delay(accepted.get());
  SSL* ssl = tls.new_connection(/*server=*/true);
  bev_ = ssl == nullptr ? nullptr
                        : bufferevent_openssl_socket_new(loop.base(), accepted.release(), ssl,
                                                         BUFFEREVENT_SSL_ACCEPTING, kOptions);
  if (bev_ == nullptr) throw std::bad_alloc();
  setup();
}

PeerLink::PeerLink(EventLoop& loop, TlsContext& tls, Handler& handler, const PeerAddress& to)
    : loop_(loop),
      tls_(tls),
      handler_(handler),
      dialed_(true),
      remote_(address_text(to.address, to.port)) {
  SSL* ssl = tls.new_connection(/*server=*/false);
  bev_ = ssl == nullptr ? nullptr
                        : bufferevent_openssl_socket_new(loop.base(), -1, ssl,
                                                         BUFFEREVENT_SSL_CONNECTING, kOptions);
  if (bev_ == nullptr) throw std::bad_alloc();
  setup();
  SocketAddress address = socket_address(to);
  if (bufferevent_socket_connect(bev_, reinterpret_cast<sockaddr*>(&address.storage),
                                 static_cast<int>(address.length)) != 0)
    close(fmt::format("cannot connect to {}: {}", remote_, std::strerror(errno)));
}

PeerLink::~PeerLink() {
  *alive_ = false;
  if (bev_ != nullptr) bufferevent_free(bev_);
}

void PeerLink::setup() {
  // A connection cut short is no attack here: messages are framed, and a lost link is reported
  // either way.
  bufferevent_openssl_set_allow_dirty_shutdown(bev_, 1);
  bufferevent_setcb(
      bev_, [](bufferevent*, void* self) { static_cast<PeerLink*>(self)->on_read(); },
      [](bufferevent*, void* self) { static_cast<PeerLink*>(self)->on_write(); },
      [](bufferevent*, short what, void* self) { static_cast<PeerLink*>(self)->on_event(what); },
      this);
  bufferevent_setwatermark(bev_, EV_READ, 0, kMaxFrame);
  bufferevent_enable(bev_, EV_READ | EV_WRITE);
}

void PeerLink::send(const Json& message) {
  if (closed_ || draining_) return;
  const auto frame = make_frame(message);
  if (!frame) {
    log::error("a message to {} was not sent: {}", remote_, frame.error().message);
    return;
  }
  if (evbuffer_get_length(bufferevent_get_output(bev_)) > kMaxQueued)
    return close("it does not read what is sent to it");
  bufferevent_write(bev_, frame->data(), frame->size());
}

bool PeerLink::sending() const {
  return !closed_ && evbuffer_get_length(bufferevent_get_output(bev_)) > 0;
}

void PeerLink::close_after_sending(std::string reason) {
  if (!sending()) return close(std::move(reason));
  draining_ = true;
  closing_reason_ = std::move(reason);
}

void PeerLink::close(std::string reason) {
  if (closed_) return;
  closed_ = true;
  bufferevent_disable(bev_, EV_READ | EV_WRITE);
  loop_.later([this, alive = alive_, reason = std::move(reason)] {
    if (*alive) handler_.link_closed(*this, reason);
  });
}

void PeerLink::on_write() {
  if (draining_ && !sending()) close(closing_reason_);
}

void PeerLink::on_read() {
  if (closed_) return;
  evbuffer* input = bufferevent_get_input(bev_);
  const std::size_t length = evbuffer_get_length(input);
  std::string bytes(length, '\0');
  evbuffer_remove(input, bytes.data(), length);
  if (draining_) return;
  reader_.append(bytes);
  const auto alive = alive_;
  while (*alive && !closed_ && !draining_) {
    auto message = reader_.next();
    if (!message) return close("malformed message: " + message.error().message);
    if (!message->has_value()) return;
    handler_.link_message(*this, std::move(**message));
  }
}

void PeerLink::on_event(short what) {
  if (closed_) return;
  if ((what & BEV_EVENT_CONNECTED) != 0) {
    // Once for TCP of a dialed link in some libevent versions, once for TLS.
    SSL* ssl = bufferevent_openssl_get_ssl(bev_);
    if (!SSL_is_init_finished(ssl)) return;
    if (!TlsContext::authenticated(ssl)) return close("it does not hold the cluster key");
    set_no_delay(bufferevent_getfd(bev_));
    open_ = true;
    handler_.link_open(*this);
    return;
  }
  if ((what & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT)) != 0) {
    const std::string reason = failure(what);
    // What arrived before the end still counts.
    const auto alive = alive_;
    on_read();
    if (*alive) close(reason);
  }
}

std::string PeerLink::failure(short what) const {
  SSL* ssl = bufferevent_openssl_get_ssl(bev_);
  const std::string foreign = TlsContext::foreign_key(ssl);
  if (!foreign.empty())
    return fmt::format(
        "it uses another cluster key (id {}, here {}): copy one host's key file to "
        "all",
        foreign, tls_.key_id());
  unsigned long tls_error = bufferevent_get_openssl_error(bev_);
  int socket_error = EVUTIL_SOCKET_ERROR();
  // A failed system call: libevent reports SSL_ERROR_SYSCALL itself, OpenSSL 3 wraps the errno.
  if (ERR_SYSTEM_ERROR(tls_error)) socket_error = ERR_GET_REASON(tls_error);
  if (ERR_SYSTEM_ERROR(tls_error) || ERR_GET_LIB(tls_error) == 0) tls_error = 0;
  if (!open_ && tls_error != 0) {
    if (dialed_ && ERR_GET_REASON(tls_error) == SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE)
      return fmt::format(
          "it does not accept this cluster key (id {}): copy one host's key file "
          "to all",
          tls_.key_id());
    const char* text = ERR_reason_error_string(tls_error);
    return fmt::format("it does not speak TLS 1.3 with the cluster key ({})",
                       text == nullptr ? fmt::format("OpenSSL error {:#x}", tls_error) : text);
  }
  // A refused connection comes as the end of the handshake, with its errno.
  if (socket_error != 0 && (!open_ || (what & BEV_EVENT_ERROR) != 0))
    return fmt::format("{}: {}", open_ ? "connection lost" : "cannot connect",
                       evutil_socket_error_to_string(socket_error));
  return open_ ? "its xenspand closed the connection" : "connection closed during the handshake";
}

}  // namespace xenspan::daemon
