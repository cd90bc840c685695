// One host's end of the simulated network. Internal to dsm-rdma/transport/sim; see sim_network.h.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "dsm-rdma/transport/sim/sim_network.h"

namespace xenspan::dsm::sim {

using Clock = std::chrono::steady_clock;

struct Arrival {
  ivy::Message message;
  std::unique_ptr<std::byte[]> page;  // payload kPage
  Clock::time_point due;
};

// What is on its way to one lane, earliest first.
class Inbox {
 public:
  void push(Arrival arrival);
  // Makes the thread in next() return, now or when it comes next.
  void wake();
  // Waits until a message is due, wake() was called or `until` has come. true: `arrival` holds the
  // message.
  bool next(Arrival& arrival, Clock::time_point until);
  // The same without waiting, and without regard to wake().
  bool due(Arrival& arrival);

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  std::vector<Arrival> heap_;  // GUARDED_BY(lock_)
  bool woken_ = false;         // GUARDED_BY(lock_)
};

class Endpoint : public Transport {
 public:
  Endpoint(const NetworkConfig& config, HostId self,
           const std::vector<std::unique_ptr<Endpoint>>& all);

  int register_frames(std::byte*, std::size_t) noexcept override { return 0; }
  int send(const ivy::Message& message, const std::byte* page) noexcept override;
  Lane borrow() noexcept override;
  void give_back(Lane lane) noexcept override;
  int wait(Lane lane, Sink& sink, bool (*done)(void*), void* context) noexcept override;
  void wake(Lane lane) noexcept override;
  void serve(Sink& sink, const std::function<long()>& idle) override;
  void nudge() noexcept override;
  void stop() noexcept override;
  Traffic traffic() const noexcept override;
  void remove_peer(HostId peer) noexcept override { left_ |= mask_of(peer); }

  // The link to this peer is gone, as seen from here.
  void lose(HostId peer);

 private:
  bool reaches(HostId peer) const { return (cut_.load() & mask_of(peer)) == 0; }
  std::chrono::microseconds delay_of(const ivy::Message& message) const;
  Inbox& inbox_for(const ivy::Message& message);
  void receive(Sink& sink, const Arrival* arrivals, std::size_t count);
  void receive_due(Inbox& inbox, Sink& sink, Arrival& arrival);
  void tell_losses(Sink& sink);

  const NetworkConfig config_;
  const HostId self_;
  const std::vector<std::unique_ptr<Endpoint>>& all_;
  std::array<Inbox, 64> inboxes_;  // by lane
  std::atomic<std::uint64_t> free_lanes_;
  std::atomic<HostMask> cut_{0}, untold_{0}, left_{0};
  std::atomic<bool> stopped_{false};
  std::atomic<std::uint64_t> messages_sent_{0}, messages_received_{0}, pages_sent_{0},
      pages_received_{0};
};

}  // namespace xenspan::dsm::sim
