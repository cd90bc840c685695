#include "dsm-rdma/transport/verbs/link.h"

#include <arpa/inet.h>

#include <cerrno>
#include <cstring>

#include "dsm-rdma/requests.h"

namespace xenspan::dsm::verbs {
namespace {

constexpr unsigned kReapBatch = 16;
constexpr unsigned kPauses = 2000;        // some tens of microseconds
constexpr long kNapNs = 50'000;           // between looks after that
constexpr unsigned kSignalledEvery = 16;  // work requests, at most, between two completions

std::uint64_t address_of(const void* at) noexcept { return reinterpret_cast<std::uint64_t>(at); }

}  // namespace

const char* phrase_for(ibv_wc_status status) noexcept {
  switch (status) {
    case IBV_WC_RETRY_EXC_ERR: return "it does not answer any more (RDMA retries exceeded)";
    case IBV_WC_RNR_RETRY_EXC_ERR: return "it has no buffers for messages (RDMA)";
    case IBV_WC_REM_ACCESS_ERR: return "it does not let pages be written where it asked for them";
    case IBV_WC_REM_INV_REQ_ERR: return "it refuses what was sent to it (RDMA)";
    case IBV_WC_LOC_LEN_ERR: return "it sent a message of the wrong length";
    case IBV_WC_WR_FLUSH_ERR: return "its RDMA connection has ended";
    default: return "its RDMA connection failed";
  }
}

// The work requests of one doorbell.
struct Link::Batch {
  static constexpr std::size_t kMessages = Requests::kWindow;
  static constexpr std::size_t kRequests = 2 * kMessages;  // a page is one more
  ibv_send_wr requests[kRequests];
  ibv_sge pieces[kRequests];
  std::byte contents[kMessages][kEnvelopeBytes];
  std::size_t count = 0, messages = 0, pages = 0;

  bool full() const noexcept { return messages == kMessages || count + 2 > kRequests; }
  void clear() noexcept { count = messages = pages = 0; }
  ibv_send_wr& next(const void* from, std::uint32_t bytes, std::uint32_t lkey) noexcept {
    ibv_send_wr& request = requests[count];
    pieces[count] = {address_of(from), bytes, lkey};
    std::memset(&request, 0, sizeof request);
    request.sg_list = &pieces[count];
    request.num_sge = 1;
    if (count > 0) requests[count - 1].next = &request;
    ++count;
    return request;
  }
};

Link::Link(std::uint32_t index, HostId self, PeerState& peer, Lane lane, bool own,
           const LinkShape& shape, const LinkMemory& memory, const wire::Bounds& bounds,
           std::uint32_t backlog, Handle<ibv_cq> send_queue, Handle<ibv_qp> queue)
    : index_(index),
      end_{self, peer.id, lane, own},
      peer_(peer),
      shape_(shape),
      memory_(memory),
      bounds_(bounds),
      send_queue_(std::move(send_queue)),
      queue_(std::move(queue)),
      staging_until_(shape.staging),
      backlog_(backlog),
      count_(shape.buffers, shape.bounce) {}

int Link::post_receive(std::uint32_t slot) noexcept {
  ibv_sge piece{address_of(memory_.receive + std::size_t{slot} * kReceiveStride), kReceiveStride,
                memory_.local_lkey};
  ibv_recv_wr request{};
  request.wr_id = std::uint64_t{index_} << 32 | slot;
  request.sg_list = &piece;
  request.num_sge = 1;
  ibv_recv_wr* bad = nullptr;
  return ibv_post_recv(queue_.get(), &request, &bad);
}

int Link::post_receives() noexcept {
  for (std::uint32_t slot = 0; slot < shape_.buffers; ++slot) {
    if (const int error = post_receive(slot)) return error;
  }
  return 0;
}

QueueRecord Link::record(std::uint32_t first_packet) const noexcept {
  return {queue_->qp_num,
          first_packet,
          shape_.buffers,
          shape_.bounce,
          address_of(memory_.bounce),
          address_of(memory_.credit)};
}

void Link::learn(const QueueRecord& theirs) {
  theirs_ = theirs;
  window_ = SendWindow(theirs.buffers, theirs.bounce_frames);
}

// --- sending; with lock_ held ---

// Takes completions of sends. false: the queue pair has failed.
bool Link::reap() noexcept {
  ibv_wc completions[kReapBatch];
  int count;
  while ((count = ibv_poll_cq(send_queue_.get(), kReapBatch, completions)) > 0) {
    for (int i = 0; i < count; ++i) {
      if (completions[i].status != IBV_WC_SUCCESS) failed_ = true;
      completed_ = completions[i].wr_id;
    }
  }
  if (count < 0) failed_ = true;
  return !failed_;
}

bool Link::has_room() noexcept {
  return posted_ - completed_ + Batch::kRequests <= shape_.sends ||
         (reap() && posted_ - completed_ + Batch::kRequests <= shape_.sends);
}
bool Link::has_credit() noexcept {
  if (window_.may_send()) return true;
  if (!window_.hear(memory_.credit->load(std::memory_order_acquire))) failed_ = true;
  return window_.may_send();
}
bool Link::has_bounce() noexcept {
  if (window_.bounce_free()) return true;
  if (!window_.hear(memory_.credit->load(std::memory_order_acquire))) failed_ = true;
  return window_.bounce_free();
}
bool Link::staging_free() noexcept {
  return completed_ >= staging_until_[next_staging_] ||
         (reap() && completed_ >= staging_until_[next_staging_]);
}

// Until `ready`; false: the peer is gone, or has failed, and `error` says it.
bool Link::wait(bool (Link::*ready)(), int& error) noexcept {
  for (unsigned turn = 0; !(this->*ready)(); ++turn) {
    if (failed_ || peer_.gone.load(std::memory_order_acquire)) {
      error = EPIPE;
      return false;
    }
    // A peer without credit may be dead: its queue pair's completions say so.
    if (turn % 64 == 63) reap();
    if (turn < kPauses) {
      cpu_pause();
    } else {
      const timespec nap{0, kNapNs};
      ::nanosleep(&nap, nullptr);
    }
  }
  return true;
}

// The staging frame whose turn it is: page and envelope as they will lie in the peer's bounce
// frame. It is the device's until the work request that will be number `until` has completed.
std::byte* Link::stage(const Outgoing& parcel, const Envelope& envelope,
                       std::uint64_t until) noexcept {
  std::byte* staging = memory_.staging + std::size_t{next_staging_} * kBounceStride;
  std::memcpy(staging, parcel.page, kPageSize);
  wire::encode(parcel.run, bounds_.epoch, staging + kPageSize);
  encode(envelope, staging + kPageSize);
  staging_until_[next_staging_] = until;
  next_staging_ = next_staging_ + 1 == shape_.staging ? 0 : next_staging_ + 1;
  return staging;
}

// A page and its message as one write with immediate into a bounce frame.
int Link::add_bounced(Batch& batch, const Outgoing& parcel) noexcept {
  int error = 0;
  if (!wait(&Link::has_bounce, error) || !wait(&Link::staging_free, error)) return error;
  const std::uint32_t bounce = window_.next_bounce();
  const Envelope envelope{Type::kMessage, Placement::kBounce, static_cast<std::uint16_t>(bounce)};
  const std::byte* staging = stage(parcel, envelope, posted_ + batch.count + 1);
  ibv_send_wr& write = batch.next(staging, kBounceBytes, memory_.local_lkey);
  write.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
  write.imm_data = htonl(bounce);
  write.wr.rdma.remote_addr = theirs_.bounce_address + std::uint64_t{bounce} * kBounceStride;
  write.wr.rdma.rkey = peer_.rkey;
  window_.count(true);
  return 0;
}

// A page from one registered frame into another; its message follows.
void Link::add_page(Batch& batch, const Outgoing& parcel, const OwnFrames& frames) noexcept {
  ibv_send_wr& write = batch.next(parcel.page, kPageSize, frames.lkey);
  write.opcode = IBV_WR_RDMA_WRITE;
  write.wr.rdma.remote_addr = peer_.frames.address + parcel.run.first.gfn * kPageSize;
  write.wr.rdma.rkey = peer_.frames.rkey;
}

int Link::add(Batch& batch, const Outgoing& parcel, const OwnFrames& frames) noexcept {
  Envelope envelope;
  if (parcel.page != nullptr) {
    if (shape_.staging == 0) return EINVAL;  // pages go the way of answers only
    ++batch.pages;
    if (!direct(parcel.page, frames)) return add_bounced(batch, parcel);
    add_page(batch, parcel, frames);
    envelope.placement = Placement::kFrame;
  }
  std::byte message[wire::kMessageBytes];
  wire::encode(parcel.run, bounds_.epoch, message);
  add_small(batch, message, envelope);
  return 0;
}

// A message on its own, inline.
void Link::add_small(Batch& batch, const std::byte* message, const Envelope& envelope) noexcept {
  std::byte* contents = batch.contents[batch.messages++];
  std::memcpy(contents, message, kContentsBytes);
  encode(envelope, contents);
  ibv_send_wr& send = batch.next(contents, kEnvelopeBytes, 0);
  send.opcode = IBV_WR_SEND;
  send.send_flags = IBV_SEND_INLINE;
  window_.count(false);
}

bool Link::direct(const std::byte* page, const OwnFrames& frames) const noexcept {
  return frames.holds(page) && peer_.frames_known.load(std::memory_order_acquire);
}

int Link::post(Batch& batch) noexcept {
  if (batch.count == 0) return 0;
  // A completion for the last one stands for all before it.
  ibv_send_wr& last = batch.requests[batch.count - 1];
  posted_ += batch.count;
  if (batch.pages != 0 || posted_ / kSignalledEvery != (posted_ - batch.count) / kSignalledEvery) {
    last.send_flags |= IBV_SEND_SIGNALED;
    last.wr_id = posted_;
  }
  ibv_send_wr* bad = nullptr;
  const int error = ibv_post_send(queue_.get(), batch.requests, &bad);
  if (error != 0) failed_ = true;
  return error;
}

int Link::send(const Outgoing* const* messages, std::size_t count,
               const OwnFrames& frames) noexcept {
  const std::lock_guard guard(lock_);
  Batch batch;
  int error = 0;
  if (failed_) return EPIPE;
  if ((error = send_kept()) != 0 || !wait(&Link::has_room, error)) return error;
  const Parcels<kMostTogether> parcels(messages, count);
  for (const Outgoing& parcel : parcels) {
    if (backlog_.capacity() != 0 && (!backlog_.empty() || !has_credit())) {
      // More than a correct domain has under way.
      if (backlog_.full() || parcel.page != nullptr) return ENOBUFS;
      wire::encode(parcel.run, bounds_.epoch, backlog_.put());
      keeps_some_.store(true, std::memory_order_release);
      continue;
    }
    // What is in the batch has to go before this thread waits: the peer cannot take it otherwise.
    const bool bounced = parcel.page != nullptr && !direct(parcel.page, frames);
    if (batch.full() ||
        (batch.count > 0 && (!has_credit() || (bounced && !(has_bounce() && staging_free()))))) {
      if ((error = post(batch)) != 0) return error;
      batch.clear();
      if (!wait(&Link::has_room, error)) return error;
    }
    if (!wait(&Link::has_credit, error)) return error;
    if ((error = add(batch, parcel, frames)) != 0) return error;
  }
  if ((error = post(batch)) != 0) return error;
  const std::size_t bytes = parcels.size() * kEnvelopeBytes + parcels.pages() * kPageSize;
  traffic_.sent(parcels.size(), parcels.pages(), bytes);
  return 0;
}

// With lock_ held. What was kept, oldest first, while there is credit and room.
int Link::send_kept() noexcept {
  while (!backlog_.empty() && has_credit() && has_room()) {
    Batch batch;
    while (!batch.full() && !backlog_.empty() && has_credit())
      add_small(batch, backlog_.take(), Envelope{});
    if (const int error = post(batch)) return error;
  }
  if (backlog_.empty()) keeps_some_.store(false, std::memory_order_release);
  return failed_ ? EPIPE : 0;
}

bool Link::push() noexcept {
  const std::lock_guard guard(lock_);
  return send_kept() == 0 && !backlog_.empty();
}

int Link::announce(const FramesNote& note) noexcept {
  const std::lock_guard guard(lock_);
  int error = 0;
  if (!wait(&Link::has_room, error) || !wait(&Link::has_credit, error)) return error;
  Batch batch;
  std::byte contents[kContentsBytes];
  encode(note, contents);
  add_small(batch, contents, Envelope{Type::kFrames, Placement::kNoPage, 0});
  return post(batch);
}

// Tells the peer how many of its messages have been taken. It has memory of its own for that, so it
// needs no buffer for it.
int Link::return_credit() noexcept {
  const std::lock_guard guard(lock_);
  int error = 0;
  if (!wait(&Link::has_room, error)) return error;
  Batch batch;
  const std::uint32_t taken = count_.taken();
  ibv_send_wr& write = batch.next(&taken, sizeof taken, 0);
  write.opcode = IBV_WR_RDMA_WRITE;
  write.send_flags = IBV_SEND_INLINE;
  write.wr.rdma.remote_addr = theirs_.credit_address;
  write.wr.rdma.rkey = peer_.rkey;
  return post(batch);
}

// --- receiving ---

// The page is there already: in its frame, or to be copied to it.
const char* Link::take_page(const ivy::Message& message, const Envelope& envelope, Sink& sink,
                            const OwnFrames& frames) noexcept {
  std::byte* place = sink.place(message);
  if (place == nullptr) return "it sent a page that nobody asked for";
  if (envelope.placement == Placement::kBounce) {
    std::memcpy(place, memory_.bounce + std::size_t{envelope.bounce} * kBounceStride, kPageSize);
  } else if (!frames.holds(place)) {
    return "it wrote a page to a frame that it cannot have";
  }
  traffic_.received(0, 1, kPageSize);
  return nullptr;
}

const char* Link::take_frames(const std::byte* contents) noexcept {
  if (end_.own || end_.lane != kServiceLane || peer_.frames_known.load(std::memory_order_relaxed))
    return "it announced its frames where or when it must not";
  if (const char* wrong = decode(contents, bounds_.pages * kPageSize, peer_.frames)) return wrong;
  peer_.frames_known.store(true, std::memory_order_release);
  return nullptr;
}

// Where a completed receive left its envelope: in its buffer, or behind the page in a bounce frame.
const char* Link::find(const ibv_wc& completion, const std::byte*& from,
                       Envelope& envelope) const noexcept {
  if (completion.opcode != IBV_WC_RECV_RDMA_WITH_IMM) {
    const auto slot = static_cast<std::uint32_t>(completion.wr_id);
    from = memory_.receive + std::size_t{slot} * kReceiveStride;
    if (const char* wrong = decode(from, completion.byte_len, shape_.bounce, envelope))
      return wrong;
    return envelope.placement == Placement::kBounce ? "it sent a page without its contents"
                                                    : nullptr;
  }
  const std::uint32_t bounce = ntohl(completion.imm_data);
  if (bounce >= shape_.bounce) return "it put a page into a bounce frame that does not exist";
  if (completion.byte_len != kBounceBytes) return "it sent a page of the wrong length";
  from = memory_.bounce + std::size_t{bounce} * kBounceStride + kPageSize;
  if (const char* wrong = decode(from, kEnvelopeBytes, shape_.bounce, envelope)) return wrong;
  return envelope.placement == Placement::kBounce && envelope.bounce == bounce
             ? nullptr
             : "it put a page into another bounce frame than it says";
}

// Everything that needs the receive buffer or the bounce frame.
const char* Link::take(const ibv_wc& completion, Sink& sink, const OwnFrames& frames,
                       wire::Run& run, bool& deliver) noexcept {
  Envelope envelope;
  const std::byte* from = nullptr;
  if (const char* wrong = find(completion, from, envelope)) return wrong;
  if (envelope.type == Type::kFrames) return take_frames(from);
  if (const char* wrong = wire::decode(from, bounds_, run)) return wrong;
  const ivy::Message& message = run.first;
  if (const char* wrong = end_.check(message)) return wrong;
  if ((message.payload == ivy::Payload::kPage) != (envelope.placement != Placement::kNoPage))
    return "it sent a page without its message or a message without its page";
  traffic_.received(1, 0, kEnvelopeBytes);
  deliver = true;
  return envelope.placement == Placement::kNoPage ? nullptr
                                                  : take_page(message, envelope, sink, frames);
}

namespace {

bool deliver_run(const wire::Run& run, Sink& sink) noexcept {
  if (run.count == 1) return sink.deliver(run.first);
  Arrivals<wire::kMostRun> together;
  for (unsigned i = 0; i < run.count; ++i) together.add(run.at(i), nullptr);
  return sink.deliver_several(together.all(), together.count());
}

}  // namespace

const char* Link::receive(const ibv_wc& completion, Sink& sink, const OwnFrames& frames) noexcept {
  wire::Run run;
  bool deliver = false;
  if (const char* wrong = take(completion, sink, frames, run, deliver)) return wrong;
  if (post_receive(static_cast<std::uint32_t>(completion.wr_id)) != 0)
    return "its RDMA connection takes no more buffers";
  if (count_.count() && return_credit() != 0) return "its RDMA connection failed";
  if (deliver && !deliver_run(run, sink)) return "it sent a message that breaks the protocol";
  return nullptr;
}

}  // namespace xenspan::dsm::verbs
