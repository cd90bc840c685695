// One authenticated byte stream between two slices of a domain, and the two ways to get one:
// connect and accept.
//
// A slice has one listening socket. Whoever connects proves that it knows the domain's secret, and
// so does the slice (HMAC-SHA256 over both sides' nonces and everything the connecting side
// declares: protocol version, host indices, epoch, purpose, tag, encryption); only then the stream
// is handed to the handler of its purpose. With `encrypt` the stream goes on as TLS 1.3 with a key
// derived from the same exchange. Used by TcpTransport for its lanes (kPurposeLane) and by the
// slice runtime for its own lines between slices.
//
// Threading: one thread reads a stream at a time and any number write it; reading and writing may
// overlap. shutdown() from any thread, it ends what the others do. Plain streams neither allocate
// nor throw in reads and writes, so a thread inside a signal handler may use them. Handlers run in
// the Acceptor's thread and must not block. Ownership: a stream owns its socket. The Acceptor owns
// the listening socket and its thread; it ends with the object.
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/patience.h"
#include "dsm-rdma/types.h"

struct ssl_st;  // OpenSSL's SSL

namespace xenspan::dsm::tcp {

// The domain's secret, made by the home for each domain and given to its slices over the daemons'
// own lines.
using Secret = std::array<std::uint8_t, 32>;

// What a stream is for. 0 is the engine's; others are named by whoever registers a handler.
inline constexpr std::uint8_t kPurposeLane = 0;

// What the connecting side declared, verified.
struct StreamId {
  HostId from = 0;  // who connected
  HostId to = 0;    // who accepted
  Epoch epoch = 1;
  std::uint8_t purpose = 0;
  std::uint32_t tag = 0;  // of the purpose's own meaning; a lane's number for kPurposeLane
  bool encrypted = false;
};

class SecureStream {
 public:
  SecureStream(UniqueFd socket, ssl_st* ssl,
               const StreamId& id);  // takes both; used by the functions below
  ~SecureStream();
  SecureStream(const SecureStream&) = delete;
  SecureStream& operator=(const SecureStream&) = delete;

  const StreamId& id() const { return id_; }
  // For poll(POLLIN). On an encrypted stream data may be buffered while poll says nothing:
  // read_some() until EAGAIN.
  int fd() const { return socket_.get(); }
  bool encrypted() const { return ssl_ != nullptr; }

  // Each returns 0 or an errno: EPIPE when the peer has closed or shutdown() was called,
  // ECONNRESET, ETIMEDOUT ... Blocks until all bytes are there.
  int read_exact(void* to, std::size_t bytes) noexcept;
  // Looks for the next bytes for so long; whether there are any (or the end) is read_exact's to
  // find out. It spares a wake-up where an answer is about to come.
  void look(const PatienceLimits& limits) noexcept;
  // Blocks until all bytes are handed to the kernel. Bytes of one call are never mixed with
  // another's.
  int write_all(const void* from, std::size_t bytes) noexcept;
  // As write_all for several pieces, with one system call in the usual case. At most kMaxPieces.
  static constexpr int kMaxPieces = 128;
  int writev(const iovec* pieces, int count) noexcept;

  // Never blocks: bytes read (> 0), or -errno: -EAGAIN when there is nothing now, -EPIPE at the
  // end.
  long read_some(void* to, std::size_t bytes) noexcept;
  // The same into several pieces, in order; an encrypted stream may fill only the first.
  long read_some(const iovec* pieces, int count) noexcept;

  // Ends both directions; readers and writers return EPIPE. Any thread, any number of times.
  void shutdown() noexcept;

 private:
  int write_plain(iovec* pieces, int count) noexcept;
  int write_encrypted(const std::byte* from, std::size_t bytes) noexcept;
  long read_encrypted(void* to, std::size_t bytes) noexcept;
  int wait_ready(short events) noexcept;

  UniqueFd socket_;
  ssl_st* ssl_;
  StreamId id_;
  std::atomic<bool> ended_{false};
  FutexLock write_lock_;  // one message at a time
  FutexLock ssl_lock_;    // each use of ssl_; never held while waiting
  std::unique_ptr<std::byte[]>
      gather_;  // encrypted: pieces are joined here, so that a message is one record
};

struct ConnectOptions {
  std::string address;  // numeric IPv4 or IPv6
  std::uint16_t port = 0;
  Secret secret{};
  HostId self = 0, peer = 0;
  Epoch epoch = 1;
  std::uint8_t purpose = 0;
  std::uint32_t tag = 0;
  bool encrypt = false;
  int timeout_ms = 5000;  // for the whole of it; a peer that is not listening yet, or not ready, is
                          // tried again until then
};

// Connects, authenticates both ways, and has the purpose's handler at the peer take the stream.
// Blocks; any thread. The error says which host, address and what it refused; ESTALE: the epoch.
Result<std::unique_ptr<SecureStream>> connect_stream(const ConnectOptions& options);

class Acceptor {
 public:
  struct Config {
    UniqueFd listening;  // bound and listening; becomes the Acceptor's
    Secret secret{};
    HostId self = 0;
    unsigned hosts = 1;    // peers declare an index below this
    Epoch epoch = 1;       // at the start
    bool encrypt = false;  // the domain's setting; a peer that declares the other is refused
    unsigned half_open_limit =
        128;  // connections that have not authenticated; the oldest gives way to a new one
    int handshake_timeout_ms = 5000;
    std::function<void(const std::string&)>
        log;  // one line a refused connection; called in the Acceptor's thread
  };
  // Takes the stream and returns true, or closes it (by letting it go) and returns false; that is
  // logged as refused.
  using Handler = std::function<bool(std::unique_ptr<SecureStream>)>;

  static Result<std::unique_ptr<Acceptor>> start(Config config);
  ~Acceptor();  // ends the thread, closes the listening socket and half-open connections;
                // handed-over streams live on
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // From any thread, at any time; a null handler takes the purpose away. Streams of a purpose
  // without a handler are told "not ready" (connect_stream tries again until its time is over).
  // After return the old handler is not running.
  void set_handler(std::uint8_t purpose, Handler handler);

  const Secret& secret() const;
  HostId self() const;
  unsigned hosts() const;
  // Of this slice, which peers have to declare. enter_epoch(): from any thread.
  Epoch epoch() const;
  void enter_epoch(Epoch epoch);
  bool encrypt() const;

 private:
  struct Impl;
  explicit Acceptor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace xenspan::dsm::tcp
