#include "dsm-rdma/transport/tcp/lanes.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "dsm-rdma/futex_lock.h"

namespace xenspan::dsm::tcp {
namespace {

// With more peers than this a look at every socket costs more than asking epoll which of them is
// ready.
constexpr std::size_t kDirectPeers = 4;
constexpr int kEvents = 32;
constexpr long kLossLingerNs = 200'000'000;

void signal_event(int fd) noexcept {
  const std::uint64_t one = 1;
  // It fails only when the counter is full, and then its reader is awake anyway.
  [[maybe_unused]] const ssize_t written = ::write(fd, &one, sizeof one);
}

}  // namespace

TcpTransport::TcpTransport(const MeshConfig& config, const Acceptor& acceptor)
    : config_(config),
      self_(acceptor.self()),
      bounds_{acceptor.hosts(), config.lanes, config.pages, acceptor.epoch()},
      epoch_(acceptor.epoch()),
      own_(config.lanes + 1),
      theirs_(config.lanes + 1),
      lanes_(config.lanes + 1) {}

TcpTransport::~TcpTransport() = default;

Result<std::unique_ptr<Transport>> TcpTransport::create(const MeshConfig& config,
                                                        const Acceptor& acceptor, Streams own,
                                                        Streams theirs) {
  std::unique_ptr<TcpTransport> made(new TcpTransport(config, acceptor));
  if (Status status = made->prepare(); !status) return status.error();
  for (HostId peer = 0; peer < own[0].size(); ++peer) {
    if (!own[0][peer]) continue;
    std::vector<std::unique_ptr<SecureStream>> ours, others;
    for (std::size_t lane = 0; lane < own.size(); ++lane) {
      ours.push_back(std::move(own[lane][peer]));
      others.push_back(std::move(theirs[lane][peer]));
    }
    if (Status status = made->add_peer(peer, std::move(ours), std::move(others)); !status)
      return status.error();
  }
  return std::unique_ptr<Transport>(std::move(made));
}

namespace {

bool watch(int epoll, int fd, void* what, unsigned how = EPOLLIN) {
  epoll_event event{};
  event.events = how;
  event.data.ptr = what;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

bool make_waiting(UniqueFd& epoll, UniqueFd& event) {
  epoll.reset(::epoll_create1(EPOLL_CLOEXEC));
  event.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  // Edge-triggered: each signal is reported once and nobody has to read it.
  return epoll && event && watch(epoll.get(), event.get(), nullptr, EPOLLIN | EPOLLET);
}

}  // namespace

namespace {

Error cannot_watch() {
  return system_error(errno, "cannot watch the connections between slices",
                      "raise the limit of open files (RLIMIT_NOFILE)");
}

}  // namespace

Status TcpTransport::prepare() {
  serve_timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!make_waiting(serve_epoll_, serve_event_) || !serve_timer_ ||
      !watch(serve_epoll_.get(), serve_timer_.get(), nullptr, EPOLLIN | EPOLLET)) {
    return cannot_watch();
  }
  for (std::size_t lane = 1; lane < lanes_.size(); ++lane) {
    if (!make_waiting(lanes_[lane].epoll, lanes_[lane].event)) return cannot_watch();
    free_lanes_.fetch_or(std::uint64_t{1} << lane);
  }
  return {};
}

// First everything that can fail without a trace; then the ways are open, and at last somebody
// listens to what comes by them.
Status TcpTransport::add_peer(HostId peer, std::vector<std::unique_ptr<SecureStream>> own,
                              std::vector<std::unique_ptr<SecureStream>> theirs) {
  if (lanes_.back().count.load() == kMostConnections) {
    return Error{ENOSPC, "too many hosts have come and gone: start the domain again"};
  }
  losses_.forget(peer);  // of a host that had this number before
  const auto make = [&](std::unique_ptr<SecureStream>& stream, std::size_t lane, bool ours) {
    const std::lock_guard guard(all_lock_);
    all_.push_back(std::make_unique<Connection>(std::move(stream), self_, peer,
                                                static_cast<Lane>(lane), ours, bounds_, epoch_));
    return all_.back().get();
  };
  for (std::size_t lane = 0; lane < own.size(); ++lane) {
    own_[lane][peer].store(make(own[lane], lane, true), std::memory_order_release);
    theirs_[lane][peer].store(make(theirs[lane], lane, false), std::memory_order_release);
  }
  for (std::size_t lane = 0; lane < own.size(); ++lane) {
    Connection* const mine = own_[lane][peer].load();
    Connection* const other = theirs_[lane][peer].load();
    bool watched = watch(serve_epoll_.get(), other->stream().fd(), other);
    if (lane == kServiceLane) {
      watched = watched && watch(serve_epoll_.get(), mine->stream().fd(), mine);
    } else {
      // A lane's entry is its position plus one: null is the event.
      LaneWait& wait = lanes_[lane];
      const std::size_t position = wait.count.load();
      wait.connections[position] = mine;
      wait.count.store(position + 1, std::memory_order_release);
      watched = watched &&
                watch(wait.epoll.get(), mine->stream().fd(), reinterpret_cast<void*>(position + 1));
    }
    if (watched) continue;
    const Error error = cannot_watch();
    remove_peer(peer);
    return error;
  }
  return {};
}

bool TcpTransport::reaches(HostId peer) const noexcept {
  return peer < kMaxHosts && own_[kServiceLane][peer].load() != nullptr;
}

void TcpTransport::remove_peer(HostId peer) noexcept {
  for (auto* side : {&own_, &theirs_}) {
    for (auto& lane : *side) {
      if (Connection* const gone = lane[peer].exchange(nullptr)) gone->leave();
    }
  }
}

Connection* TcpTransport::route(const ivy::Message& message) noexcept {
  if (message.to >= bounds_.hosts || message.to == self_) return nullptr;
  // A row has its copyset where others name a lane.
  const Lane lane = message.kind == ivy::Kind::kRow ? kServiceLane : message.lane;
  if (lane > config_.lanes) return nullptr;
  const auto way = [&](Ways& side, Lane by) {
    return side[by][message.to].load(std::memory_order_acquire);
  };
  switch (message.kind) {
    case ivy::Kind::kGrant:
    case ivy::Kind::kInvalidateAck: return way(theirs_, lane);
    case ivy::Kind::kReadRequest:
    case ivy::Kind::kWriteRequest: return way(own_, lane);
    // Of a page that is managed here: the answer comes back on the lane of the vCPU that wants it.
    // TCP acknowledges what one side alone sends by packets of their own, and both ends would wait
    // for these.
    case ivy::Kind::kReadForward:
    case ivy::Kind::kWriteForward:
    case ivy::Kind::kInvalidate: return way(own_, message.requester == self_ ? lane : kServiceLane);
    default: return way(own_, kServiceLane);
  }
}

int TcpTransport::send(const ivy::Message& message, const std::byte* page) noexcept {
  const Outgoing one{wire::Run(message), page};
  std::size_t failed;
  return send_several(&one, 1, failed);
}

int TcpTransport::send_several(const Outgoing* messages, std::size_t count,
                               std::size_t& failed) noexcept {
  constexpr std::size_t kMost = Connection::kMostTogether;
  int first_error = 0;
  for (std::size_t start = 0; start < count; start += kMost) {
    const std::size_t size = std::min(count - start, kMost);
    std::size_t in_group = 0;
    const int error = send_group(messages + start, size, in_group);
    if (error == 0 || first_error != 0) continue;
    first_error = error;
    failed = start + in_group;
  }
  return first_error;
}

// At most kMostTogether messages, one system call for each connection. One that fails keeps none of
// the others from going.
int TcpTransport::send_group(const Outgoing* messages, std::size_t count,
                             std::size_t& failed) noexcept {
  Connection* ways[Connection::kMostTogether];
  int first_error = 0;
  const auto note = [&](std::size_t index, int error) {
    if (first_error != 0) return;
    first_error = error;
    failed = index;
  };
  for (std::size_t at = 0; at < count; ++at) {
    const ivy::Message& message = messages[at].run.first;
    ways[at] = route(message);
    if (ways[at] == nullptr && !ivy::may_be_late(message.kind)) note(at, EINVAL);
  }
  for (std::size_t at = 0; at < count; ++at) {
    Connection* const way = ways[at];
    if (way == nullptr) continue;  // has gone with one before it
    const Outgoing* together[Connection::kMostTogether];
    std::size_t size = 0;
    for (std::size_t i = at; i < count; ++i) {
      if (ways[i] != way) continue;
      together[size++] = &messages[i];
      ways[i] = nullptr;
    }
    const int error = way->send(together, size);
    if (error == 0 || way->left()) continue;
    if (!stopped()) mark_lost(*way, "it does not take messages any more");
    note(at, error);
  }
  return first_error;
}

Lane TcpTransport::borrow() noexcept {
  std::uint64_t free = free_lanes_.load(std::memory_order_relaxed);
  while (free != 0) {
    const std::uint64_t lowest = free & (~free + 1);
    if (free_lanes_.compare_exchange_weak(free, free & ~lowest, std::memory_order_acquire)) {
      return static_cast<Lane>(std::countr_zero(lowest));
    }
  }
  return kServiceLane;
}

void TcpTransport::give_back(Lane lane) noexcept {
  if (lane != kServiceLane)
    free_lanes_.fetch_or(std::uint64_t{1} << lane, std::memory_order_release);
}

void TcpTransport::receive_lane(LaneWait& wait, std::size_t position, Sink& sink) noexcept {
  Connection& connection = *wait.connections[position];
  const char* why = nullptr;
  const Connection::Outcome outcome = connection.receive(sink, &why);
  if (outcome == Connection::Outcome::kNothing) return;
  sink.flush();
  if (outcome == Connection::Outcome::kSome) return;
  wait.ended[position] = 1;
  ::epoll_ctl(wait.epoll.get(), EPOLL_CTL_DEL, connection.stream().fd(), nullptr);
  if (!stopped()) mark_lost(connection, why);
}

// A look without sleeping.
bool TcpTransport::poll_lane(LaneWait& wait, Sink& sink) noexcept {
  const std::size_t count = wait.count.load(std::memory_order_acquire);
  if (count > kDirectPeers) return sleep_lane(wait, sink, 0);
  for (std::size_t i = 0; i < count; ++i) {
    if (!wait.ended[i]) receive_lane(wait, i, sink);
  }
  return true;
}

bool TcpTransport::sleep_lane(LaneWait& wait, Sink& sink, int timeout_ms) noexcept {
  epoll_event events[kEvents];
  const int count = ::epoll_wait(wait.epoll.get(), events, kEvents, timeout_ms);
  for (int i = 0; i < count; ++i) {
    const auto entry = reinterpret_cast<std::size_t>(events[i].data.ptr);
    if (entry != 0 && !wait.ended[entry - 1]) receive_lane(wait, entry - 1, sink);
  }
  return count > 0;
}

int TcpTransport::wait(Lane lane, Sink& sink, bool (*done)(void*), void* context) noexcept {
  LaneWait& wait = lanes_[lane];
  Patience patience(config_.wait);
  while (!done(context)) {
    if (stopped()) return ECANCELED;
    poll_lane(wait, sink);
    if (done(context) || patience.look_again()) continue;
    wait.asleep.store(true, std::memory_order_seq_cst);
    if (!done(context) && !stopped()) sleep_lane(wait, sink, -1);
    wait.asleep.store(false, std::memory_order_relaxed);
    patience.restart();
  }
  return 0;
}

void TcpTransport::wake(Lane lane) noexcept {
  if (lane == kServiceLane || lane >= lanes_.size()) return;
  // Pairs with wait(): either it sees what was done before this call, or this sees that it is
  // asleep.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (lanes_[lane].asleep.load(std::memory_order_relaxed)) signal_event(lanes_[lane].event.get());
}

void TcpTransport::mark_lost(const Connection& connection, const char* why) noexcept {
  const HostId peer = connection.peer();
  if (connection.left() || !losses_.note(peer, why)) return;
  for (auto* side : {&own_, &theirs_}) {
    for (auto& lane : *side) {
      if (Connection* const other = lane[peer].load()) other->stream().shutdown();
    }
  }
  nudge();
}

// One round of the service thread. Whether anything came.
bool TcpTransport::serve_ready(Sink& sink, long timeout_us) {
  epoll_event events[kEvents];
  timespec timeout{timeout_us / 1'000'000, (timeout_us % 1'000'000) * 1000};
  const int count = ::epoll_pwait2(serve_epoll_.get(), events, kEvents,
                                   timeout_us < 0 ? nullptr : &timeout, nullptr);
  bool lost = false;
  for (int i = 0; i < count; ++i) {
    if (events[i].data.ptr == nullptr) {
      lost = true;  // perhaps: a nudge may be about a loss
      continue;
    }
    auto& connection = *static_cast<Connection*>(events[i].data.ptr);
    const char* why = nullptr;
    const Connection::Outcome outcome = connection.receive(sink, &why);
    sink.flush();
    if (outcome != Connection::Outcome::kLost) continue;
    ::epoll_ctl(serve_epoll_.get(), EPOLL_CTL_DEL, connection.stream().fd(), nullptr);
    if (!stopped()) mark_lost(connection, why);
    lost = true;
  }
  if (lost) losses_.report(sink);
  return count > 0;
}

void TcpTransport::serve(Sink& sink, const std::function<long()>& idle) {
  const std::uint64_t spin_ns = std::uint64_t{config_.serve_spin_us} * 1000;
  std::uint64_t sleep_at = 0;
  losses_.report(sink);
  while (!stopped()) {
    long timeout_us = idle();
    if (spin_ns != 0 && now_ns() < sleep_at) timeout_us = 0;
    if (serve_ready(sink, timeout_us) && spin_ns != 0) sleep_at = now_ns() + spin_ns;
  }
  if (!losses_.any()) return;
  // The other hosts are about to find the same loss: a connection that ends here before they have
  // would be blamed in its place.
  const timespec while_they_look{0, kLossLingerNs};
  ::nanosleep(&while_they_look, nullptr);
  shut_down();
}

// Threads that block in a send are freed by this; what was sent before still arrives.
void TcpTransport::shut_down() noexcept {
  const std::lock_guard guard(all_lock_);
  for (auto& connection : all_) connection->stream().shutdown();
}

void TcpTransport::nudge() noexcept { signal_event(serve_event_.get()); }

void TcpTransport::nudge_at(std::uint64_t due_ns) noexcept {
  const std::lock_guard guard(timer_lock_);
  if (timer_due_ns_ <= due_ns && timer_due_ns_ > now_ns()) return;
  timer_due_ns_ = due_ns;
  const itimerspec when{
      {}, {static_cast<time_t>(due_ns / 1'000'000'000), static_cast<long>(due_ns % 1'000'000'000)}};
  if (::timerfd_settime(serve_timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr) != 0) nudge();
}

void TcpTransport::stop() noexcept {
  if (stopped_.exchange(true)) return;
  if (!losses_.any()) shut_down();
  for (std::size_t lane = 1; lane < lanes_.size(); ++lane) signal_event(lanes_[lane].event.get());
  signal_event(serve_event_.get());
}

Transport::Traffic TcpTransport::traffic() const noexcept {
  Traffic sum{};
  const std::lock_guard guard(all_lock_);
  for (const auto& connection : all_) connection->add_traffic(sum);
  return sum;
}

}  // namespace xenspan::dsm::tcp
