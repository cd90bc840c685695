// One end of a lane between two slices: a queue pair, its receive buffers, and what is known of the
// peer's.
//
// Who uses what: send() and announce() by any thread, under the link's lock; receive() by the one
// thread that polls the completion queue of the lane. A message is an inline send. A page goes with
// its message behind it as one write with immediate into a bounce frame; between registered frames
// it is a write, and the message a send in the same doorbell, which a reliable connection keeps in
// order. A send that finds no room waits for it: polls, then naps; the device makes room without
// the peer's doing. Nor is credit waited for: windows cover what can be under way (shapes.h), but
// on this slice's end of the service lane, where what finds none is kept until push().
//
// Buffers belong to the link: posted receive buffers and bounce frames to the device until their
// message has been taken, staging frames to the device until the completion of their write.
// Internal to transport/verbs.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/transport/lane_end.h"
#include "dsm-rdma/transport/parcels.h"
#include "dsm-rdma/transport/verbs/envelope.h"
#include "dsm-rdma/transport/verbs/flow.h"
#include "dsm-rdma/transport/verbs/handles.h"
#include "dsm-rdma/transport/verbs/setup_record.h"
#include "dsm-rdma/transport/verbs/shapes.h"
#include "dsm-rdma/wire.h"

namespace xenspan::dsm::verbs {

// A slice's own frames, once they are registered.
struct OwnFrames {
  std::byte* base = nullptr;
  std::size_t bytes = 0;
  std::uint32_t lkey = 0;
  bool holds(const std::byte* page) const noexcept { return page >= base && page < base + bytes; }
};

// What all links to one peer share.
struct PeerState {
  HostId id = 0;
  std::atomic<bool> gone{false};  // lost or stopped: nobody waits for it any more
  // The peer's frames: written by the service thread, then `frames_known`.
  FramesNote frames;
  std::atomic<bool> frames_known{false};
  std::uint32_t rkey = 0;  // of its bounce frames and credit counters
};

// A link's memory, all of it registered: what only this host writes, and what the peer does.
struct LinkMemory {
  std::byte* receive = nullptr;  // shape.buffers * kReceiveStride
  std::byte* staging = nullptr;  // shape.staging * kBounceStride
  std::uint32_t local_lkey = 0;
  std::byte* bounce = nullptr;                   // shape.bounce pages; the peer writes them
  std::atomic<std::uint32_t>* credit = nullptr;  // the peer writes how many of our messages it took
};

class Link {
 public:
  Link(std::uint32_t index, HostId self, PeerState& peer, Lane lane, bool own,
       const LinkShape& shape, const LinkMemory& memory, const wire::Bounds& bounds,
       std::uint32_t backlog, Handle<ibv_cq> send_queue, Handle<ibv_qp> queue);

  // Set-up, by one thread, in this order.
  int post_receives() noexcept;
  QueueRecord record(std::uint32_t first_packet) const noexcept;
  void learn(const QueueRecord& theirs);
  ibv_qp* queue() { return queue_.get(); }

  // At most kMostTogether messages with their pages; those that are a run (wire.h) go as one. One
  // doorbell for so many as a thread has requests. 0 or an errno.
  static constexpr std::size_t kMostTogether = 64;
  int send(const Outgoing* const* messages, std::size_t count, const OwnFrames& frames) noexcept;
  int announce(const FramesNote& note) noexcept;
  // Sends what was kept, as far as there is credit. Whether something is left. Any thread.
  bool push() noexcept;
  bool keeps_some() const noexcept { return keeps_some_.load(std::memory_order_acquire); }

  // A completed receive. nullptr, or why the peer is not to be listened to any more.
  const char* receive(const ibv_wc& completion, Sink& sink, const OwnFrames& frames) noexcept;

  PeerState& peer() { return peer_; }
  void add_traffic(Transport::Traffic& sum) const noexcept { traffic_.add_to(sum); }

 private:
  struct Batch;
  bool wait(bool (Link::*ready)(), int& error) noexcept;
  bool has_room() noexcept;
  bool has_credit() noexcept;
  bool has_bounce() noexcept;
  bool staging_free() noexcept;
  bool reap() noexcept;
  bool direct(const std::byte* page, const OwnFrames& frames) const noexcept;
  std::byte* stage(const Outgoing& parcel, const Envelope& envelope, std::uint64_t until) noexcept;
  int add_bounced(Batch& batch, const Outgoing& parcel) noexcept;
  void add_page(Batch& batch, const Outgoing& parcel, const OwnFrames& frames) noexcept;
  int add(Batch& batch, const Outgoing& parcel, const OwnFrames& frames) noexcept;
  void add_small(Batch& batch, const std::byte* message, const Envelope& envelope) noexcept;
  int send_kept() noexcept;
  int post(Batch& batch) noexcept;
  int post_receive(std::uint32_t slot) noexcept;
  const char* take_page(const ivy::Message& message, const Envelope& envelope, Sink& sink,
                        const OwnFrames& frames) noexcept;
  const char* take_frames(const std::byte* contents) noexcept;
  const char* find(const ibv_wc& completion, const std::byte*& from,
                   Envelope& envelope) const noexcept;
  const char* take(const ibv_wc& completion, Sink& sink, const OwnFrames& frames, wire::Run& run,
                   bool& deliver) noexcept;
  int return_credit() noexcept;

  const std::uint32_t index_;
  const LaneEnd end_;
  PeerState& peer_;
  const LinkShape shape_;
  const LinkMemory memory_;
  const wire::Bounds bounds_;
  QueueRecord theirs_;
  Handle<ibv_cq> send_queue_;
  Handle<ibv_qp> queue_;

  FutexLock lock_;  // the sender's half: what follows, and the queue's send side
  SendWindow window_{1, 0};
  std::uint64_t posted_ = 0, completed_ = 0;  // work requests
  std::uint32_t next_staging_ = 0;
  std::vector<std::uint64_t> staging_until_;  // the work request that frees each staging frame
  bool failed_ = false;
  Backlog backlog_;
  std::atomic<bool> keeps_some_{false};  // backlog_ is not empty

  ReceiveCount count_;  // the reader's

  TrafficCounters traffic_;
};

// "its connection failed: ..." for a completion's status.
const char* phrase_for(ibv_wc_status status) noexcept;

}  // namespace xenspan::dsm::verbs
