// What the ends of lanes have in common over every wire: whose they are, which messages belong
// there, and what they have carried.
//
// A message from a peer is untrusted: wire::decode() says that it is well-formed, LaneEnd::check()
// that it comes from that peer, is for this slice, and is of a kind its lane carries. Threading:
// LaneEnd is constant; TrafficCounters any. No allocation.
#pragma once

#include <atomic>
#include <cstdint>

#include "dsm-rdma/transport/transport.h"

namespace xenspan::dsm {

struct LaneEnd {
  HostId self, peer;
  Lane lane;
  bool own;  // this slice owns the lane; otherwise the peer does

  // nullptr, or why the peer is not to be listened to any more (a phrase, static).
  const char* check(const ivy::Message& message) const noexcept {
    if (message.from != peer) return "it sent a message in another host's name";
    if (message.to != self) return "it sent a message for another host";
    const bool answer =
        message.kind == ivy::Kind::kGrant || message.kind == ivy::Kind::kInvalidateAck;
    const bool request =
        message.kind == ivy::Kind::kReadRequest || message.kind == ivy::Kind::kWriteRequest;
    // Its own host manages the page that the lane's owner wants: a request that it has given
    // itself.
    const bool forward = message.requester == peer && (message.kind == ivy::Kind::kReadForward ||
                                                       message.kind == ivy::Kind::kWriteForward ||
                                                       message.kind == ivy::Kind::kInvalidate);
    if (answer != own) return "it sent a message in the wrong direction of a lane";
    if (message.kind == ivy::Kind::kRow)  // has no lane
      return lane == kServiceLane ? nullptr : "it sent a message that belongs on the service lane";
    if ((answer || request || lane != kServiceLane) && message.lane != lane)
      return "it sent a message of another lane";
    if (!answer && !request && !forward && lane != kServiceLane)
      return "it sent a message that belongs on the service lane";
    return nullptr;
  }
};

class TrafficCounters {
 public:
  void sent(std::uint64_t messages, std::uint64_t pages, std::uint64_t bytes) noexcept {
    add(messages_sent_, messages);
    add(pages_sent_, pages);
    add(bytes_sent_, bytes);
  }
  void received(std::uint64_t messages, std::uint64_t pages, std::uint64_t bytes) noexcept {
    add(messages_received_, messages);
    add(pages_received_, pages);
    add(bytes_received_, bytes);
  }
  void add_to(Transport::Traffic& sum) const noexcept {
    sum.messages_sent += messages_sent_.load(std::memory_order_relaxed);
    sum.messages_received += messages_received_.load(std::memory_order_relaxed);
    sum.pages_sent += pages_sent_.load(std::memory_order_relaxed);
    sum.pages_received += pages_received_.load(std::memory_order_relaxed);
    sum.bytes_sent += bytes_sent_.load(std::memory_order_relaxed);
    sum.bytes_received += bytes_received_.load(std::memory_order_relaxed);
  }

 private:
  static void add(std::atomic<std::uint64_t>& counter, std::uint64_t amount) noexcept {
    if (amount != 0) counter.fetch_add(amount, std::memory_order_relaxed);
  }

  std::atomic<std::uint64_t> messages_sent_{0}, pages_sent_{0}, bytes_sent_{0};
  std::atomic<std::uint64_t> messages_received_{0}, pages_received_{0}, bytes_received_{0};
};

}  // namespace xenspan::dsm
