// VerbsTransport: the queue pairs of a slice, who reads which, and how threads wait for them.
//
// The owner's ends of lane k >= 1 share a completion queue that the thread that has borrowed lane k
// polls; all other ends share the service thread's. Internal to transport/verbs.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "dsm-rdma/transport/losses.h"
#include "dsm-rdma/transport/verbs/device.h"
#include "dsm-rdma/transport/verbs/link.h"
#include "dsm-rdma/transport/verbs/verbs_transport.h"
#include "dsm-rdma/transport/verbs/waiter.h"

namespace xenspan::dsm::verbs {

// Pages of locked memory, registered with the device.
class RegisteredMemory {
 public:
  RegisteredMemory() = default;
  RegisteredMemory(const RegisteredMemory&) = delete;
  ~RegisteredMemory();
  Status open(ibv_pd* domain, std::size_t bytes, int access);
  std::byte* base() const { return base_; }
  std::uint32_t lkey() const { return region_->lkey; }
  std::uint32_t rkey() const { return region_->rkey; }

 private:
  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
  Handle<ibv_mr> region_;
};

class VerbsTransport final : public Transport {
 public:
  VerbsTransport(const VerbsConfig& config, HostId self, Epoch epoch);
  ~VerbsTransport() override;

  // Set-up, by one thread, in this order; setup.cc.
  Status open(std::unique_ptr<Device> device);
  Status add_peer(HostId peer, std::unique_ptr<tcp::SecureStream> stream);
  SetupRecord record(HostId peer) const;
  Status connect(HostId peer, const SetupRecord& theirs);
  Status start();
  tcp::SecureStream& stream(HostId peer) { return *peers_[peer]->stream; }

  int register_frames(std::byte* base, std::size_t bytes) noexcept override;
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
  struct Peer {
    PeerState state;
    std::unique_ptr<tcp::SecureStream> stream;  // says when the peer's process or host is gone
    RegisteredMemory local, remote;             // links go before their memory
    std::vector<std::unique_ptr<Link>> own, theirs;
    std::vector<std::uint32_t> own_packets, their_packets;  // first packet numbers, by lane
    bool stream_ended = false;                              // the service thread's
  };
  struct LaneWait {
    Waiter waiter;
    std::atomic<bool> asleep{false};
  };

  Result<std::unique_ptr<Link>> make_link(Peer& peer, Lane lane, bool own,
                                          const LinkMemory& memory);
  Status bring_up(Link& link, std::uint32_t own_packet, const QueueRecord& theirs,
                  const SetupRecord& record);
  Link* route(const ivy::Message& message) noexcept;
  int send_group(const Outgoing* messages, std::size_t count, std::size_t& failed) noexcept;
  bool poll(Waiter& waiter, Sink& sink) noexcept;
  const char* cause_of(ibv_wc_status status) noexcept;
  void finish(const ibv_wc& completion, Sink& sink) noexcept;
  void sleep_lane(LaneWait& wait, Sink& sink, bool (*done)(void*), void* context) noexcept;
  void sleep_service(Sink& sink, long timeout_us);
  void look_at_stream(Peer& peer) noexcept;
  bool push_kept() noexcept;
  void mark_lost(HostId peer, const char* why) noexcept;
  bool stopped() const noexcept { return stopped_.load(std::memory_order_acquire); }

  const VerbsConfig config_;
  const HostId self_;
  const wire::Bounds bounds_;
  MeshShape shape_;
  std::unique_ptr<Device> device_;
  OwnFrames frames_;
  Handle<ibv_mr> frames_region_;
  std::vector<LaneWait> lanes_;  // index 0: the service thread's
  std::vector<std::unique_ptr<Peer>> peers_;
  std::vector<Link*> links_;                  // by the number in a receive's identifier
  std::atomic<std::uint64_t> free_lanes_{0};  // bit k: lane k is not lent
  Losses losses_;
  std::atomic<bool> kept_{false};  // a link keeps messages that found no credit
  std::atomic<bool> stopped_{false};
};

}  // namespace xenspan::dsm::verbs
