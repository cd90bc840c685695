// TcpTransport: the connections of a slice, who reads which, and how threads wait for them.
// Internal to transport/tcp.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "base/unique_fd.h"
#include "dsm-rdma/transport/losses.h"
#include "dsm-rdma/transport/tcp/connection.h"
#include "dsm-rdma/transport/tcp/tcp_transport.h"

namespace xenspan::dsm::tcp {

class TcpTransport final : public Transport {
 public:
  // streams[lane][peer], for all numbers a host can have; nullptr where there is none. `own`: made
  // by this slice; `theirs`: made by the peer.
  using Streams = std::vector<std::vector<std::unique_ptr<SecureStream>>>;
  static Result<std::unique_ptr<Transport>> create(const MeshConfig& config,
                                                   const Acceptor& acceptor, Streams own,
                                                   Streams theirs);
  ~TcpTransport() override;

  int register_frames(std::byte*, std::size_t) noexcept override { return 0; }
  // The kernel has the buffers.
  unsigned most_ahead() const noexcept override { return Requests::kAheadPlaces; }
  int send(const ivy::Message& message, const std::byte* page) noexcept override;
  int send_several(const Outgoing* messages, std::size_t count,
                   std::size_t& failed) noexcept override;
  Lane borrow() noexcept override;
  void give_back(Lane lane) noexcept override;
  int wait(Lane lane, Sink& sink, bool (*done)(void*), void* context) noexcept override;
  void wake(Lane lane) noexcept override;
  void serve(Sink& sink, const std::function<long()>& idle) override;
  void nudge() noexcept override;
  void nudge_at(std::uint64_t due_ns) noexcept override;
  void stop() noexcept override;
  Traffic traffic() const noexcept override;
  void remove_peer(HostId peer) noexcept override;
  void enter_epoch(Epoch epoch) noexcept override { epoch_.store(epoch); }

  // A host joins: its streams, by lane. One call at a time.
  Status add_peer(HostId peer, std::vector<std::unique_ptr<SecureStream>> own,
                  std::vector<std::unique_ptr<SecureStream>> theirs);
  const MeshConfig& config() const { return config_; }
  // Whether there are connections to this host.
  bool reaches(HostId peer) const noexcept;

 private:
  // Of a host number in the course of the domain's life: several hosts may come and go.
  static constexpr std::size_t kMostConnections = 256;
  // What the thread that has borrowed a lane waits with.
  struct LaneWait {
    UniqueFd epoll, event;
    // This slice's ends, in the order the peers came; the first `count` are there.
    std::array<Connection*, kMostConnections> connections{};
    std::atomic<std::size_t> count{0};
    std::array<char, kMostConnections> ended{};  // by position; the borrower's own
    std::atomic<bool> asleep{false};
  };
  // The connections now, of one side: [lane][peer].
  using Ways = std::vector<std::array<std::atomic<Connection*>, kMaxHosts>>;

  TcpTransport(const MeshConfig& config, const Acceptor& acceptor);
  Status prepare();
  Connection* route(const ivy::Message& message) noexcept;
  int send_group(const Outgoing* messages, std::size_t count, std::size_t& failed) noexcept;
  void mark_lost(const Connection& connection, const char* why) noexcept;
  void shut_down() noexcept;
  bool poll_lane(LaneWait& wait, Sink& sink) noexcept;
  bool sleep_lane(LaneWait& wait, Sink& sink, int timeout_ms) noexcept;
  void receive_lane(LaneWait& wait, std::size_t position, Sink& sink) noexcept;
  bool serve_ready(Sink& sink, long timeout_us);
  bool stopped() const noexcept { return stopped_.load(std::memory_order_acquire); }

  const MeshConfig config_;
  const HostId self_;
  const wire::Bounds bounds_;  // but for the epoch, which is ..
  std::atomic<Epoch> epoch_;
  // All there ever were: of a peer that has left, the memory stays until the end.
  mutable std::mutex all_lock_;
  std::vector<std::unique_ptr<Connection>> all_;  // GUARDED_BY(all_lock_)
  Ways own_, theirs_;
  std::vector<LaneWait> lanes_;               // index 0 is unused
  std::atomic<std::uint64_t> free_lanes_{0};  // bit k: lane k is not lent
  Losses losses_;
  UniqueFd serve_epoll_, serve_event_, serve_timer_;
  FutexLock timer_lock_;
  std::uint64_t timer_due_ns_ = 0;  // set to, or past. GUARDED_BY(timer_lock_)
  std::atomic<bool> stopped_{false};
};

}  // namespace xenspan::dsm::tcp
