#include "dsm-rdma/transport/tcp/lanes.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

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

TcpTransport::TcpTransport(const MeshConfig& config, HostId self)
    : config_(config), self_(self), lanes_(config.lanes + 1) {}

TcpTransport::~TcpTransport() = default;

Result<std::unique_ptr<Transport>> TcpTransport::create(const MeshConfig& config,
                                                        const Acceptor& acceptor, Streams own,
                                                        Streams theirs) {
  std::unique_ptr<TcpTransport> made(new TcpTransport(config, acceptor.self()));
  if (Status status = made->adopt(acceptor, std::move(own), std::move(theirs)); !status)
    return status.error();
  return std::unique_ptr<Transport>(std::move(made));
}

Status TcpTransport::adopt(const Acceptor& acceptor, Streams own, Streams theirs) {
  const wire::Bounds bounds{static_cast<unsigned>(config_.hosts.size()), config_.lanes,
                            config_.pages, acceptor.epoch()};
  own_.resize(own.size());
  theirs_.resize(theirs.size());
  for (std::size_t lane = 0; lane < own.size(); ++lane) {
    for (std::size_t peer = 0; peer < own[lane].size(); ++peer) {
      const auto make = [&](std::unique_ptr<SecureStream>& stream, bool ours) {
        return stream == nullptr ? nullptr
                                 : std::make_unique<Connection>(
                                       std::move(stream), self_, static_cast<HostId>(peer),
                                       static_cast<Lane>(lane), ours, bounds);
      };
      own_[lane].push_back(make(own[lane][peer], true));
      theirs_[lane].push_back(make(theirs[lane][peer], false));
    }
  }
  return prepare_lanes();
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

Status TcpTransport::prepare_lanes() {
  const char* const remedy = "raise the limit of open files (RLIMIT_NOFILE)";
  const auto fail = [&] {
    return system_error(errno, "cannot watch the connections between slices", remedy);
  };
  if (!make_waiting(serve_epoll_, serve_event_)) return fail();
  for (std::size_t lane = 0; lane < own_.size(); ++lane) {
    LaneWait& wait = lanes_[lane];
    if (lane != kServiceLane && !make_waiting(wait.epoll, wait.event)) return fail();
    for (const auto& connection : theirs_[lane]) {
      if (connection && !watch(serve_epoll_.get(), connection->stream().fd(), connection.get()))
        return fail();
    }
    for (const auto& connection : own_[lane]) {
      if (!connection) continue;
      if (lane == kServiceLane) {
        if (!watch(serve_epoll_.get(), connection->stream().fd(), connection.get())) return fail();
        continue;
      }
      // A lane's entry is its position plus one: null is the event.
      wait.connections.push_back(connection.get());
      void* const position = reinterpret_cast<void*>(wait.connections.size());
      if (!watch(wait.epoll.get(), connection->stream().fd(), position)) return fail();
    }
    wait.ended.assign(wait.connections.size(), 0);
    if (lane != kServiceLane) free_lanes_.fetch_or(std::uint64_t{1} << lane);
  }
  return {};
}

Connection* TcpTransport::route(const ivy::Message& message) noexcept {
  if (message.to >= config_.hosts.size() || message.to == self_ || message.lane > config_.lanes)
    return nullptr;
  switch (message.kind) {
    case ivy::Kind::kGrant:
    case ivy::Kind::kInvalidateAck: return theirs_[message.lane][message.to].get();
    case ivy::Kind::kReadRequest:
    case ivy::Kind::kWriteRequest: return own_[message.lane][message.to].get();
    default: return own_[kServiceLane][message.to].get();
  }
}

int TcpTransport::send(const ivy::Message& message, const std::byte* page) noexcept {
  const Outgoing one{message, page};
  std::size_t failed;
  return send_several(&one, 1, failed);
}

int TcpTransport::send_several(const Outgoing* messages, std::size_t count,
                               std::size_t& failed) noexcept {
  constexpr std::size_t kMost = Connection::kMostTogether;
  for (std::size_t start = 0; start < count; start += kMost) {
    const std::size_t size = std::min(count - start, kMost);
    if (const int error = send_group(messages + start, size, failed)) {
      failed += start;
      return error;
    }
  }
  return 0;
}

// At most kMostTogether messages, one system call for each connection.
int TcpTransport::send_group(const Outgoing* messages, std::size_t count,
                             std::size_t& failed) noexcept {
  Connection* ways[Connection::kMostTogether];
  for (failed = 0; failed < count; ++failed) {
    ways[failed] = route(messages[failed].message);
    if (ways[failed] == nullptr) return EINVAL;
  }
  for (failed = 0; failed < count; ++failed) {
    Connection* const way = ways[failed];
    if (way == nullptr) continue;  // has gone with one before it
    const Outgoing* together[Connection::kMostTogether];
    std::size_t size = 0;
    for (std::size_t i = failed; i < count; ++i) {
      if (ways[i] != way) continue;
      together[size++] = &messages[i];
      ways[i] = nullptr;
    }
    const int error = way->send(together, size);
    if (error == 0) continue;
    if (!stopped()) mark_lost(way->peer(), "it does not take messages any more");
    return error;
  }
  return 0;
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
  if (!stopped()) mark_lost(connection.peer(), why);
}

// A look without sleeping.
bool TcpTransport::poll_lane(LaneWait& wait, Sink& sink) noexcept {
  if (wait.connections.size() > kDirectPeers) return sleep_lane(wait, sink, 0);
  for (std::size_t i = 0; i < wait.connections.size(); ++i) {
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

void TcpTransport::mark_lost(HostId peer, const char* why) noexcept {
  Loss& loss = losses_[peer];
  int none = Loss::kNone;
  if (!loss.state.compare_exchange_strong(none, Loss::kWriting)) return;
  loss.why = why;
  loss.state.store(Loss::kKnown, std::memory_order_release);
  for (auto* side : {&own_, &theirs_}) {
    for (auto& lane : *side) lane[peer]->stream().shutdown();
  }
  nudge();
}

void TcpTransport::report_losses(Sink& sink) noexcept {
  for (std::size_t peer = 0; peer < config_.hosts.size(); ++peer) {
    int known = Loss::kKnown;
    if (!losses_[peer].state.compare_exchange_strong(known, Loss::kReported)) continue;
    sink.peer_lost(static_cast<HostId>(peer), losses_[peer].why);
  }
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
    if (!stopped()) mark_lost(connection.peer(), why);
    lost = true;
  }
  if (lost) report_losses(sink);
  return count > 0;
}

void TcpTransport::serve(Sink& sink, const std::function<long()>& idle) {
  const std::uint64_t spin_ns = std::uint64_t{config_.serve_spin_us} * 1000;
  std::uint64_t sleep_at = 0;
  report_losses(sink);
  while (!stopped()) {
    long timeout_us = idle();
    if (spin_ns != 0 && now_ns() < sleep_at) timeout_us = 0;
    if (serve_ready(sink, timeout_us) && spin_ns != 0) sleep_at = now_ns() + spin_ns;
  }
  if (!any_loss()) return;
  // The other hosts are about to find the same loss: a connection that ends here before they have
  // would be blamed in its place.
  const timespec while_they_look{0, kLossLingerNs};
  ::nanosleep(&while_they_look, nullptr);
  shut_down();
}

bool TcpTransport::any_loss() const noexcept {
  return std::any_of(losses_.begin(), losses_.end(),
                     [](const Loss& loss) { return loss.state.load() != Loss::kNone; });
}

// Threads that block in a send are freed by this; what was sent before still arrives.
void TcpTransport::shut_down() noexcept {
  for (auto* side : {&own_, &theirs_}) {
    for (auto& lane : *side) {
      for (auto& connection : lane) {
        if (connection) connection->stream().shutdown();
      }
    }
  }
}

void TcpTransport::nudge() noexcept { signal_event(serve_event_.get()); }

void TcpTransport::stop() noexcept {
  if (stopped_.exchange(true)) return;
  if (!any_loss()) shut_down();
  for (std::size_t lane = 1; lane < lanes_.size(); ++lane) signal_event(lanes_[lane].event.get());
  signal_event(serve_event_.get());
}

Transport::Traffic TcpTransport::traffic() const noexcept {
  Traffic sum{};
  for (const auto* side : {&own_, &theirs_}) {
    for (const auto& lane : *side) {
      for (const auto& connection : lane) {
        if (connection) connection->add_traffic(sum);
      }
    }
  }
  return sum;
}

}  // namespace xenspan::dsm::tcp
