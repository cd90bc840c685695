// One end of a lane between two slices: cuts the byte stream into messages and checks that they
// belong there.
//
// Internal to transport/tcp. receive() is called by one thread at a time (the lane's reader);
// send() by any. What a peer sends is untrusted: a message must be well-formed and belong to its
// lane.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "dsm-rdma/transport/lane_end.h"
#include "dsm-rdma/transport/tcp/secure_stream.h"
#include "dsm-rdma/transport/transport.h"
#include "dsm-rdma/wire.h"

namespace xenspan::dsm::tcp {

class Connection {
 public:
  // `own`: this slice owns the lane (it made the connection); otherwise the peer does. `epoch` is
  // the transport's, in place of that in `bounds`.
  Connection(std::unique_ptr<SecureStream> stream, HostId self, HostId peer, Lane lane, bool own,
             const wire::Bounds& bounds, const std::atomic<Epoch>& epoch);

  enum class Outcome { kNothing, kSome, kLost };
  // Takes what is there now and delivers the messages that are whole. kLost: `why` (a phrase,
  // static) says it.
  Outcome receive(Sink& sink, const char** why) noexcept;
  // Sends at most kMostTogether messages with their pages, by one system call in the usual case;
  // those that are a run (wire.h) as one. 0 or an errno.
  static constexpr std::size_t kMostTogether = SecureStream::kMaxPieces / 2;
  static_assert(kMostTogether >= wire::kMostRun);
  int send(const Outgoing* const* messages, std::size_t count) noexcept;

  SecureStream& stream() { return *stream_; }
  // The peer has left the domain: what ends now is no loss. Any thread.
  void leave() noexcept {
    left_.store(true, std::memory_order_seq_cst);
    stream_->shutdown();
  }
  bool left() const noexcept { return left_.load(std::memory_order_seq_cst); }
  HostId peer() const { return end_.peer; }
  void add_traffic(Transport::Traffic& sum) const noexcept { traffic_.add_to(sum); }

 private:
  const char* parse(Sink& sink) noexcept;
  const char* parse_slots(Sink& sink) noexcept;
  const char* leave_slots(Sink& sink, std::size_t from) noexcept;
  const char* finish_page(Sink& sink) noexcept;
  long read_linear() noexcept;
  long read_slots() noexcept;
  Outcome read_once(Sink& sink, const char** why) noexcept;

  // Answers: all of a thread's sixteen requests, with their pages, by one read; more for streams
  // that run ahead on the service lane. Requests and forwards are small, and to peers' lanes
  // nothing else comes.
  static constexpr std::size_t kAnswersBytes = 16 * (wire::kMessageBytes + kPageSize);
  static constexpr std::size_t kStreamBytes = 2 * kAnswersBytes;
  static constexpr std::size_t kRequestsBytes = 16 << 10;

  // Streams: messages with their pages, one after the other, are read into slots, so that the pages
  // of all of them lie behind each other, as the frames do that they are for. What does not fit, as
  // a message without a page, goes on in the buffer.
  static constexpr std::size_t kSlot = wire::kMessageBytes + kPageSize;
  static constexpr std::size_t kSlots = kStreamBytes / kSlot;
  struct Slots {
    std::byte pages[kSlots][kPageSize];
    std::byte headers[kSlots][wire::kMessageBytes];
  };

  std::unique_ptr<SecureStream> stream_;
  const LaneEnd end_;
  wire::Bounds bounds() const noexcept {
    wire::Bounds now = bounds_;
    now.epoch = epoch_.load(std::memory_order_relaxed);
    return now;
  }
  const wire::Bounds bounds_;
  const std::atomic<Epoch>& epoch_;

  // The reader's: bytes of a message that is not whole yet, or the page that follows `message_`.
  const std::size_t buffer_bytes_;
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t filled_ = 0;
  ivy::Message message_;
  std::byte* page_ = nullptr;
  std::size_t page_filled_ = 0;
  // Where there are slots, the buffer is empty unless a page is being read into its frame.
  std::unique_ptr<Slots> slots_;
  std::size_t slots_filled_ = 0;  // bytes of the stream

  TrafficCounters traffic_;
  std::atomic<bool> left_{false};
};

}  // namespace xenspan::dsm::tcp
