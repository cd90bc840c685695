// One end of a lane between two slices: cuts the byte stream into messages and checks that they
// belong there.
//
// Internal to transport/tcp. receive() is called by one thread at a time (the lane's reader);
// send() by any. What a peer sends is untrusted: a message must be well-formed, from that peer, to
// this slice, and of a kind its lane carries.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "dsm-rdma/transport/tcp/secure_stream.h"
#include "dsm-rdma/transport/transport.h"
#include "dsm-rdma/wire.h"

namespace xenspan::dsm::tcp {

class Connection {
 public:
  // `own`: this slice owns the lane (it made the connection); otherwise the peer does.
  Connection(std::unique_ptr<SecureStream> stream, HostId self, HostId peer, Lane lane, bool own,
             const wire::Bounds& bounds);

  enum class Outcome { kNothing, kSome, kLost };
  // Takes what is there now and delivers the messages that are whole. kLost: `why` (a phrase,
  // static) says it.
  Outcome receive(Sink& sink, const char** why) noexcept;
  // 0 or an errno.
  int send(const ivy::Message& message, const std::byte* page) noexcept;
  // Messages without pages, at most kMostTogether.
  static constexpr std::size_t kMostTogether = 8;
  int send_together(const ivy::Message* const* messages, std::size_t count) noexcept;

  SecureStream& stream() { return *stream_; }
  HostId peer() const { return peer_; }
  void add_traffic(Transport::Traffic& sum) const noexcept;

 private:
  const char* parse(Sink& sink) noexcept;
  const char* check(const ivy::Message& message) const noexcept;
  const char* finish_page(Sink& sink) noexcept;
  Outcome read_once(Sink& sink, const char** why) noexcept;

  // Room for a few grants with their pages; a window of sixteen takes several reads.
  static constexpr std::size_t kBufferBytes = 16 << 10;

  std::unique_ptr<SecureStream> stream_;
  HostId self_, peer_;
  Lane lane_;
  bool own_;
  wire::Bounds bounds_;

  // The reader's: bytes of a message that is not whole yet, or the page that follows `message_`.
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t filled_ = 0;
  ivy::Message message_;
  std::byte* page_ = nullptr;
  std::size_t page_filled_ = 0;

  std::atomic<std::uint64_t> messages_sent_{0}, pages_sent_{0}, bytes_sent_{0};
  std::atomic<std::uint64_t> messages_received_{0}, pages_received_{0}, bytes_received_{0};
};

}  // namespace xenspan::dsm::tcp
