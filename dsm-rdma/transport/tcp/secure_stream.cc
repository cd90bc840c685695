#include "dsm-rdma/transport/tcp/secure_stream.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "dsm-rdma/transport/tcp/handshake.h"

namespace xenspan::dsm::tcp {
namespace {

// The largest piece of plain text that one TLS record carries, and so the largest message that is
// gathered.
constexpr std::size_t kGatherBytes = 16384;

}  // namespace

SecureStream::SecureStream(UniqueFd socket, ssl_st* ssl, const StreamId& id)
    : socket_(std::move(socket)), ssl_(ssl), id_(id) {
  if (ssl_ != nullptr) gather_ = std::make_unique<std::byte[]>(kGatherBytes);
}

SecureStream::~SecureStream() { handshake::free_tls(ssl_); }

void SecureStream::shutdown() noexcept {
  ended_.store(true, std::memory_order_release);
  ::shutdown(socket_.get(), SHUT_RDWR);
}

int SecureStream::wait_ready(short events) noexcept {
  pollfd ready{socket_.get(), events, 0};
  while (::poll(&ready, 1, -1) < 0) {
    if (errno != EINTR) return errno;
  }
  return ended_.load(std::memory_order_acquire) ? EPIPE : 0;
}

int SecureStream::read_exact(void* to, std::size_t bytes) noexcept {
  auto* next = static_cast<std::byte*>(to);
  while (bytes > 0) {
    long got;
    if (ssl_ == nullptr) {
      got = ::recv(socket_.get(), next, bytes, MSG_WAITALL);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return got == 0 ? EPIPE : errno;
    } else {
      got = read_encrypted(next, bytes);
      if (got == -EAGAIN) {
        if (const int error = wait_ready(POLLIN)) return error;
        continue;
      }
      if (got < 0) return static_cast<int>(-got);
    }
    next += got;
    bytes -= static_cast<std::size_t>(got);
  }
  return 0;
}

void SecureStream::look(const PatienceLimits& limits) noexcept {
  pollfd waiting{socket_.get(), POLLIN, 0};
  for (Patience patience(limits); ::poll(&waiting, 1, 0) == 0 && patience.look_again();) {
  }
}

long SecureStream::read_some(void* to, std::size_t bytes) noexcept {
  const iovec piece{to, bytes};
  return read_some(&piece, 1);
}

long SecureStream::read_some(const iovec* pieces, int count) noexcept {
  if (ssl_ != nullptr) return read_encrypted(pieces->iov_base, pieces->iov_len);
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces);
  message.msg_iovlen = static_cast<std::size_t>(count);
  const ssize_t got = count == 1
                          ? ::recv(socket_.get(), pieces->iov_base, pieces->iov_len, MSG_DONTWAIT)
                          : ::recvmsg(socket_.get(), &message, MSG_DONTWAIT);
  if (got > 0) return got;
  if (got == 0) return -EPIPE;
  return errno == EINTR ? -EAGAIN : -errno;
}

long SecureStream::read_encrypted(void* to, std::size_t bytes) noexcept {
  const std::lock_guard guard(ssl_lock_);
  std::size_t got = 0;
  ERR_clear_error();
  errno = 0;
  if (SSL_read_ex(ssl_, to, bytes, &got) == 1) return static_cast<long>(got);
  switch (SSL_get_error(ssl_, 0)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return ended_.load(std::memory_order_acquire) ? -EPIPE : -EAGAIN;
    case SSL_ERROR_ZERO_RETURN: return -EPIPE;
    case SSL_ERROR_SYSCALL: return errno != 0 ? -errno : -EPIPE;
    default: return errno == 0 ? -EPIPE : -EPROTO;
  }
}

int SecureStream::write_all(const void* from, std::size_t bytes) noexcept {
  const iovec piece{const_cast<void*>(from), bytes};
  return writev(&piece, 1);
}

int SecureStream::writev(const iovec* pieces, int count) noexcept {
  if (count < 0 || count > kMaxPieces) return EINVAL;
  if (ssl_ == nullptr) {
    iovec copy[kMaxPieces];
    std::copy_n(pieces, count, copy);
    const std::lock_guard guard(write_lock_);
    return write_plain(copy, count);
  }
  const std::lock_guard guard(write_lock_);
  std::size_t gathered = 0;
  for (int i = 0; i < count; ++i) {
    const auto* from = static_cast<const std::byte*>(pieces[i].iov_base);
    std::size_t left = pieces[i].iov_len;
    while (left > 0) {
      const std::size_t take = std::min(left, kGatherBytes - gathered);
      std::memcpy(gather_.get() + gathered, from, take);
      gathered += take, from += take, left -= take;
      if (gathered < kGatherBytes) continue;
      if (const int error = write_encrypted(gather_.get(), gathered)) return error;
      gathered = 0;
    }
  }
  return gathered > 0 ? write_encrypted(gather_.get(), gathered) : 0;
}

int SecureStream::write_plain(iovec* pieces, int count) noexcept {
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = static_cast<std::size_t>(count);
  while (message.msg_iovlen > 0) {
    ssize_t sent = message.msg_iovlen == 1 ? ::send(socket_.get(), message.msg_iov->iov_base,
                                                    message.msg_iov->iov_len, MSG_NOSIGNAL)
                                           : ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    // A signal may cut a blocking send short: go on where it stopped.
    while (message.msg_iovlen > 0 && static_cast<std::size_t>(sent) >= message.msg_iov->iov_len) {
      sent -= static_cast<ssize_t>(message.msg_iov->iov_len);
      ++message.msg_iov;
      --message.msg_iovlen;
    }
    if (sent > 0) {
      message.msg_iov->iov_base = static_cast<std::byte*>(message.msg_iov->iov_base) + sent;
      message.msg_iov->iov_len -= static_cast<std::size_t>(sent);
    }
  }
  return 0;
}

int SecureStream::write_encrypted(const std::byte* from, std::size_t bytes) noexcept {
  for (;;) {
    int wanted = 0;
    {
      const std::lock_guard guard(ssl_lock_);
      std::size_t sent = 0;
      ERR_clear_error();
      errno = 0;
      if (SSL_write_ex(ssl_, from, bytes, &sent) == 1)
        return 0;  // no partial writes: the mode is off
      switch (SSL_get_error(ssl_, 0)) {
        case SSL_ERROR_WANT_READ: wanted = POLLIN; break;
        case SSL_ERROR_WANT_WRITE: wanted = POLLOUT; break;
        default: return errno != 0 ? errno : EPIPE;
      }
    }
    // The reader may use the stream while this thread waits for room.
    if (const int error = wait_ready(static_cast<short>(wanted))) return error;
  }
}

}  // namespace xenspan::dsm::tcp
