// What happens after set-up: sending, receiving, waiting, losing a peer.
#include "dsm-rdma/transport/verbs/lanes.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "dsm-rdma/futex_lock.h"

namespace xenspan::dsm::verbs {
namespace {

constexpr int kCompletions = 16;   // taken at a time
constexpr long kCreditNapUs = 50;  // between looks for credit, which comes without a completion

}  // namespace

int VerbsTransport::register_frames(std::byte* base, std::size_t bytes) noexcept {
  if (!config_.pin_frames || device_ == nullptr) return 0;
  const int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
  frames_region_.reset(ibv_reg_mr(device_->domain.get(), base, bytes, access));
  if (!frames_region_) return errno;
  frames_ = {base, bytes, frames_region_->lkey};
  const FramesNote note{reinterpret_cast<std::uint64_t>(base), bytes, frames_region_->rkey};
  for (const auto& peer : peers_) {
    if (!peer) continue;
    if (const int error = peer->own[kServiceLane]->announce(note)) return error;
  }
  return 0;
}

Link* VerbsTransport::route(const ivy::Message& message) noexcept {
  if (message.to >= peers_.size() || !peers_[message.to] || message.lane > config_.lanes)
    return nullptr;
  Peer& peer = *peers_[message.to];
  switch (message.kind) {
    case ivy::Kind::kGrant:
    case ivy::Kind::kInvalidateAck: return peer.theirs[message.lane].get();
    case ivy::Kind::kReadRequest:
    case ivy::Kind::kWriteRequest: return peer.own[message.lane].get();
    default: return peer.own[kServiceLane].get();
  }
}

int VerbsTransport::send(const ivy::Message& message, const std::byte* page) noexcept {
  const Outgoing one{wire::Run(message), page};
  std::size_t failed;
  return send_several(&one, 1, failed);
}

int VerbsTransport::send_several(const Outgoing* messages, std::size_t count,
                                 std::size_t& failed) noexcept {
  for (std::size_t start = 0; start < count; start += Link::kMostTogether) {
    const std::size_t size = std::min(count - start, Link::kMostTogether);
    if (const int error = send_group(messages + start, size, failed)) {
      failed += start;
      return error;
    }
  }
  return 0;
}

// At most kMostTogether messages; a doorbell for each queue pair.
int VerbsTransport::send_group(const Outgoing* messages, std::size_t count,
                               std::size_t& failed) noexcept {
  Link* ways[Link::kMostTogether];
  for (failed = 0; failed < count; ++failed) {
    ways[failed] = route(messages[failed].run.first);
    if (ways[failed] == nullptr) return EINVAL;
  }
  for (failed = 0; failed < count; ++failed) {
    Link* const way = ways[failed];
    if (way == nullptr) continue;  // has gone with one before it
    const Outgoing* together[Link::kMostTogether];
    std::size_t size = 0;
    for (std::size_t i = failed; i < count; ++i) {
      if (ways[i] != way) continue;
      together[size++] = &messages[i];
      ways[i] = nullptr;
    }
    const int error = way->send(together, size, frames_);
    // The service thread looks for credit from now on.
    if (way->keeps_some() && !kept_.exchange(true)) nudge();
    if (error == 0) continue;
    if (!stopped()) mark_lost(messages[failed].run.first.to, "it does not take messages any more");
    return error;
  }
  return 0;
}

Lane VerbsTransport::borrow() noexcept {
  std::uint64_t free = free_lanes_.load(std::memory_order_relaxed);
  while (free != 0) {
    const std::uint64_t lowest = free & (~free + 1);
    if (free_lanes_.compare_exchange_weak(free, free & ~lowest, std::memory_order_acquire))
      return static_cast<Lane>(std::countr_zero(lowest));
  }
  return kServiceLane;
}

void VerbsTransport::give_back(Lane lane) noexcept {
  if (lane != kServiceLane)
    free_lanes_.fetch_or(std::uint64_t{1} << lane, std::memory_order_release);
}

// A queue pair that has ended without a reason of its own may have one in common with all others.
const char* VerbsTransport::cause_of(ibv_wc_status status) noexcept {
  ibv_port_attr port{};
  if (status == IBV_WC_WR_FLUSH_ERR &&
      ibv_query_port(device_->context.get(), device_->port, &port) == 0 &&
      port.state != IBV_PORT_ACTIVE)
    return "the RDMA port of this host is down";
  return phrase_for(status);
}

void VerbsTransport::finish(const ibv_wc& completion, Sink& sink) noexcept {
  Link& link = *links_[completion.wr_id >> 32];
  // Of a peer that is lost already, or after stop(), nothing is heard any more.
  if (stopped() || link.peer().gone.load(std::memory_order_acquire)) return;
  const char* why = completion.status == IBV_WC_SUCCESS ? link.receive(completion, sink, frames_)
                                                        : cause_of(completion.status);
  if (why != nullptr && !stopped()) mark_lost(link.peer().id, why);
}

// Takes what has arrived, without sleeping. Whether that was anything.
bool VerbsTransport::poll(Waiter& waiter, Sink& sink) noexcept {
  ibv_wc completions[kCompletions];
  const int count = waiter.poll(completions, kCompletions);
  for (int i = 0; i < count; ++i) finish(completions[i], sink);
  if (count > 0) sink.flush();
  return count > 0;
}

int VerbsTransport::wait(Lane lane, Sink& sink, bool (*done)(void*), void* context) noexcept {
  LaneWait& wait = lanes_[lane];
  Patience patience(config_.wait);
  while (!done(context)) {
    if (stopped()) return ECANCELED;
    if (poll(wait.waiter, sink) || patience.look_again()) continue;
    sleep_lane(wait, sink, done, context);
    patience.restart();
  }
  return 0;
}

void VerbsTransport::sleep_lane(LaneWait& wait, Sink& sink, bool (*done)(void*),
                                void* context) noexcept {
  wait.asleep.store(true, std::memory_order_seq_cst);
  void* ready[Waiter::kMostReady];
  if (wait.waiter.arm() == 0 && !poll(wait.waiter, sink) && !done(context) && !stopped())
    wait.waiter.sleep(-1, ready);
  wait.asleep.store(false, std::memory_order_relaxed);
}

void VerbsTransport::wake(Lane lane) noexcept {
  if (lane == kServiceLane || lane >= lanes_.size()) return;
  // Pairs with sleep_lane(): either it sees what was done before this call, or this sees that it is
  // asleep.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (lanes_[lane].asleep.load(std::memory_order_relaxed)) lanes_[lane].waiter.signal();
}

void VerbsTransport::mark_lost(HostId peer, const char* why) noexcept {
  if (!losses_.note(peer, why)) return;
  peers_[peer]->state.gone.store(true, std::memory_order_release);
  peers_[peer]->stream->shutdown();
  nudge();
}

// Nothing is ever sent on the stream after set-up: it only ends.
void VerbsTransport::look_at_stream(Peer& peer) noexcept {
  std::byte unexpected;
  const long got = peer.stream->read_some(&unexpected, sizeof unexpected);
  if (got == -EAGAIN) return;
  lanes_[kServiceLane].waiter.unwatch(peer.stream->fd());
  peer.stream_ended = true;
  if (stopped()) return;
  mark_lost(peer.state.id, got > 0             ? "it sent something on the connection of the set-up"
                           : got == -ETIMEDOUT ? "it does not answer any more"
                           : got == -ECONNRESET ? "its connection was reset"
                                                : "it has closed its connection");
}

void VerbsTransport::sleep_service(Sink& sink, long timeout_us) {
  Waiter& waiter = lanes_[kServiceLane].waiter;
  if (waiter.arm() == 0 && poll(waiter, sink)) return;
  void* ready[Waiter::kMostReady];
  const int count = waiter.sleep(timeout_us, ready);
  for (int i = 0; i < count; ++i) look_at_stream(*static_cast<Peer*>(ready[i]));
}

// What found no credit before. Whether some of it still waits.
bool VerbsTransport::push_kept() noexcept {
  if (!kept_.exchange(false)) return false;
  bool left = false;
  for (const auto& peer : peers_) {
    if (peer && !peer->state.gone.load(std::memory_order_acquire))
      left = peer->own[kServiceLane]->push() || left;
  }
  if (left) kept_.store(true);
  return left;
}

void VerbsTransport::serve(Sink& sink, const std::function<long()>& idle) {
  const std::uint64_t spin_ns = std::uint64_t{config_.serve_spin_us} * 1000;
  std::uint64_t sleep_at = 0;
  while (!stopped()) {
    long timeout_us = idle();
    if (push_kept())
      timeout_us = timeout_us < 0 ? kCreditNapUs : std::min(timeout_us, kCreditNapUs);
    losses_.report(sink);
    if (stopped()) return;
    if (poll(lanes_[kServiceLane].waiter, sink)) {
      if (spin_ns != 0) sleep_at = now_ns() + spin_ns;
    } else if (spin_ns == 0 || now_ns() >= sleep_at) {
      sleep_service(sink, timeout_us);
    } else {
      cpu_pause();
    }
  }
}

void VerbsTransport::nudge() noexcept { lanes_[kServiceLane].waiter.signal(); }

void VerbsTransport::stop() noexcept {
  if (stopped_.exchange(true)) return;
  // Threads that wait in a send are freed by this, and peers hear of it.
  for (const auto& peer : peers_) {
    if (!peer) continue;
    peer->state.gone.store(true, std::memory_order_release);
    peer->stream->shutdown();
  }
  for (LaneWait& lane : lanes_) lane.waiter.signal();
}

Transport::Traffic VerbsTransport::traffic() const noexcept {
  Traffic sum{};
  for (const auto& peer : peers_) {
    if (!peer) continue;
    for (const auto* side : {&peer->own, &peer->theirs}) {
      for (const auto& link : *side) link->add_traffic(sum);
    }
  }
  return sum;
}

}  // namespace xenspan::dsm::verbs
