#include "dsm-rdma/transport/sim/endpoint.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

namespace xenspan::dsm::sim {
namespace {

constexpr std::size_t kMessageBytes = 64;  // as on a real wire
constexpr unsigned kRound = 16;            // messages that are received in one round, at most

bool later(const Arrival& a, const Arrival& b) { return a.due > b.due; }

// The finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

void Inbox::push(Arrival arrival) {
  const std::lock_guard guard(lock_);
  heap_.push_back(std::move(arrival));
  std::push_heap(heap_.begin(), heap_.end(), later);
  changed_.notify_all();
}

void Inbox::wake() {
  const std::lock_guard guard(lock_);
  woken_ = true;
  changed_.notify_all();
}

bool Inbox::next(Arrival& arrival, Clock::time_point until) {
  std::unique_lock guard(lock_);
  for (;;) {
    const Clock::time_point now = Clock::now();
    if (!heap_.empty() && heap_.front().due <= now) {
      std::pop_heap(heap_.begin(), heap_.end(), later);
      arrival = std::move(heap_.back());
      heap_.pop_back();
      return true;
    }
    if (std::exchange(woken_, false) || until <= now) return false;
    changed_.wait_until(guard, heap_.empty() ? until : std::min(until, heap_.front().due));
  }
}

bool Inbox::due(Arrival& arrival) {
  const std::lock_guard guard(lock_);
  if (heap_.empty() || heap_.front().due > Clock::now()) return false;
  std::pop_heap(heap_.begin(), heap_.end(), later);
  arrival = std::move(heap_.back());
  heap_.pop_back();
  return true;
}

Endpoint::Endpoint(const NetworkConfig& config, HostId self,
                   const std::vector<std::unique_ptr<Endpoint>>& all)
    : config_(config), self_(self), all_(all) {
  const unsigned lanes = std::min(config.lanes, 63u);
  free_lanes_ = lanes == 63 ? ~std::uint64_t{1} : ((std::uint64_t{1} << (lanes + 1)) - 1) & ~1ull;
}

std::chrono::microseconds Endpoint::delay_of(const ivy::Message& message) const {
  std::uint64_t hash = mix(config_.seed);
  hash = mix(hash ^ message.gfn);
  hash = mix(hash ^ message.txn);
  hash = mix(hash ^ (std::uint64_t{message.from} << 24 | std::uint64_t{message.to} << 16 |
                     std::uint64_t{message.requester} << 8 | static_cast<unsigned>(message.kind)));
  const std::uint64_t range = config_.max_delay_us - config_.min_delay_us + 1;
  return std::chrono::microseconds(config_.min_delay_us + hash % range);
}

// Answers go to the lane their request names, everything else to the service thread.
Inbox& Endpoint::inbox_for(const ivy::Message& message) {
  const bool answer =
      message.kind == ivy::Kind::kGrant || message.kind == ivy::Kind::kInvalidateAck;
  return inboxes_[answer && message.lane < inboxes_.size() ? message.lane : kServiceLane];
}

int Endpoint::send(const ivy::Message& message, const std::byte* page) noexcept {
  if (message.to >= all_.size() || message.to == self_) return EINVAL;
  if (stopped_) return ECANCELED;
  if (!reaches(message.to)) return ECONNRESET;
  if ((left_.load() & mask_of(message.to)) != 0) return ivy::may_be_late(message.kind) ? 0 : EINVAL;
  Arrival arrival{message, nullptr, Clock::now() + delay_of(message)};
  if (message.payload == ivy::Payload::kPage) {
    arrival.page = std::make_unique<std::byte[]>(kPageSize);
    std::memcpy(arrival.page.get(), page, kPageSize);
    ++pages_sent_;
  }
  ++messages_sent_;
  Endpoint& peer = *all_[message.to];
  peer.inbox_for(message).push(std::move(arrival));
  return 0;
}

Lane Endpoint::borrow() noexcept {
  std::uint64_t free = free_lanes_.load();
  while (free != 0) {
    if (free_lanes_.compare_exchange_weak(free, free & (free - 1))) {
      return static_cast<Lane>(std::countr_zero(free));
    }
  }
  return kServiceLane;
}

void Endpoint::give_back(Lane lane) noexcept {
  if (lane != kServiceLane) free_lanes_ |= std::uint64_t{1} << lane;
}

// What came from one host in one round, as a read of its socket would bring it.
void Endpoint::receive(Sink& sink, const Arrival* arrivals, std::size_t count) {
  const HostId from = arrivals->message.from;
  if (!reaches(from) || (left_.load() & mask_of(from)) != 0) return;
  Arrivals<kRound> together;
  for (std::size_t i = 0; i < count; ++i) {
    together.add(arrivals[i].message, arrivals[i].page.get());
    if (arrivals[i].page != nullptr) ++pages_received_;
  }
  messages_received_ += count;
  if (sink.deliver_several(together.all(), count)) return;
  all_[from]->lose(self_);
  lose(from);
}

// This message and, as a read of a socket brings several, those that are due as well.
void Endpoint::receive_due(Inbox& inbox, Sink& sink, Arrival& arrival) {
  Arrival round[kRound];
  std::size_t count = 0;
  round[count++] = std::move(arrival);
  while (count < kRound && inbox.due(round[count])) ++count;
  for (std::size_t i = 0, end; i < count; i = end) {
    for (end = i + 1; end < count && round[end].message.from == round[i].message.from;) ++end;
    receive(sink, round + i, end - i);
  }
  sink.flush();
}

int Endpoint::wait(Lane lane, Sink& sink, bool (*done)(void*), void* context) noexcept {
  Arrival arrival;
  while (!done(context)) {
    if (stopped_) return ECANCELED;
    if (inboxes_[lane].next(arrival, Clock::now() + std::chrono::hours(1)))
      receive_due(inboxes_[lane], sink, arrival);
  }
  return 0;
}

void Endpoint::wake(Lane lane) noexcept { inboxes_[lane].wake(); }

void Endpoint::serve(Sink& sink, const std::function<long()>& idle) {
  Arrival arrival;
  while (!stopped_) {
    tell_losses(sink);
    const long wish_us = idle();
    const auto pause = wish_us < 0 ? std::chrono::microseconds(std::chrono::hours(1))
                                   : std::chrono::microseconds(wish_us);
    if (inboxes_[kServiceLane].next(arrival, Clock::now() + pause))
      receive_due(inboxes_[kServiceLane], sink, arrival);
  }
}

void Endpoint::nudge() noexcept { inboxes_[kServiceLane].wake(); }

void Endpoint::stop() noexcept {
  stopped_ = true;
  for (Inbox& inbox : inboxes_) inbox.wake();
}

void Endpoint::lose(HostId peer) {
  if (cut_.fetch_or(mask_of(peer)) & mask_of(peer)) return;
  untold_ |= mask_of(peer);
  nudge();
}

void Endpoint::tell_losses(Sink& sink) {
  for (HostMask lost = untold_.exchange(0); lost != 0; lost &= lost - 1) {
    sink.peer_lost(static_cast<HostId>(std::countr_zero(lost)), "the simulated link was cut");
  }
}

Transport::Traffic Endpoint::traffic() const noexcept {
  Traffic traffic{};
  traffic.messages_sent = messages_sent_;
  traffic.messages_received = messages_received_;
  traffic.pages_sent = pages_sent_;
  traffic.pages_received = pages_received_;
  traffic.bytes_sent = messages_sent_ * kMessageBytes + pages_sent_ * kPageSize;
  traffic.bytes_received = messages_received_ * kMessageBytes + pages_received_ * kPageSize;
  return traffic;
}

}  // namespace xenspan::dsm::sim
