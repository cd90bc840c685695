// TcpTransport: the connections of a slice, who reads which, and how threads wait for them.
// Internal to transport/tcp.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "base/unique_fd.h"
#include "dsm-rdma/transport/losses.h"
#include "dsm-rdma/transport/tcp/connection.h"
#include "dsm-rdma/transport/tcp/tcp_transport.h"

namespace xenspan::dsm::tcp {

class TcpTransport final : public Transport {
 public:
  // streams[lane][peer]; nullptr at self. `own`: made by this slice; `theirs`: made by the peer.
  using Streams = std::vector<std::vector<std::unique_ptr<SecureStream>>>;
  static Result<std::unique_ptr<Transport>> create(const MeshConfig& config,
                                                   const Acceptor& acceptor, Streams own,
                                                   Streams theirs);
  ~TcpTransport() override;

  int register_frames(std::byte*, std::size_t) noexcept override { return 0; }
  int send(const ivy::Message& message, const std::byte* page) noexcept override;
  int send_several(const Outgoing* messages, std::size_t count,
                   std::size_t& failed) noexcept override;
  Lane borrow() noexcept override;
  void give_back(Lane lane) noexcept override;
  int wait(Lane lane, Sink& sink, bool (*done)(void*), void* context) noexcept override;
  void wake(Lane lane) noexcept override;
  void serve(Sink& sink, const std::function<long()>& idle) override;
  void nudge() noexcept override;
  void stop() noexcept override;
  Traffic traffic() const noexcept override;

 private:
  // What the thread that has borrowed a lane waits with.
  struct LaneWait {
    UniqueFd epoll, event;
    std::vector<Connection*> connections;  // this slice's ends, one a peer
    std::vector<char> ended;               // by position in `connections`; the borrower's own
    std::atomic<bool> asleep{false};
  };

  TcpTransport(const MeshConfig& config, HostId self);
  Status adopt(const Acceptor& acceptor, Streams own, Streams theirs);
  Status prepare_lanes();
  Connection* route(const ivy::Message& message) noexcept;
  int send_group(const Outgoing* messages, std::size_t count, std::size_t& failed) noexcept;
  void mark_lost(HostId peer, const char* why) noexcept;
  void shut_down() noexcept;
  bool poll_lane(LaneWait& wait, Sink& sink) noexcept;
  bool sleep_lane(LaneWait& wait, Sink& sink, int timeout_ms) noexcept;
  void receive_lane(LaneWait& wait, std::size_t position, Sink& sink) noexcept;
  bool serve_ready(Sink& sink, long timeout_us);
  bool stopped() const noexcept { return stopped_.load(std::memory_order_acquire); }

  const MeshConfig config_;
  const HostId self_;
  // [lane][peer]
  std::vector<std::vector<std::unique_ptr<Connection>>> own_, theirs_;
  std::vector<LaneWait> lanes_;               // index 0 is unused
  std::atomic<std::uint64_t> free_lanes_{0};  // bit k: lane k is not lent
  Losses losses_;
  UniqueFd serve_epoll_, serve_event_;
  std::atomic<bool> stopped_{false};
};

}  // namespace xenspan::dsm::tcp
