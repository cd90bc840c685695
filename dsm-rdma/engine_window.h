// What a thread brings along when it faults or receives: its outbox, its lane and its requests.
//
// Internal to dsm-rdma, parts of EngineCore. Each object lives on the stack of the one thread that
// uses it; the engine is borrowed.
#pragma once

#include "dsm-rdma/engine_core.h"

namespace xenspan::dsm {

// Where a receiving thread's messages go, and the messages they set off. What is left in the outbox
// when it goes is sent then.
class EngineCore::Inbox final : public Sink {
 public:
  explicit Inbox(EngineCore& engine) noexcept : engine_(engine) {}
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;
  ~Inbox() override { flush(); }

  Outbox& outbox() noexcept { return outbox_; }
  std::byte* place(const ivy::Message& grant) noexcept override { return engine_.place(grant); }
  bool deliver(const ivy::Message& message) noexcept override {
    const bool good = engine_.deliver(message, outbox_);
    engine_.count_received(message.from);
    return good;
  }
  bool deliver_several(const Incoming* incoming, std::size_t count) noexcept override {
    const bool good = engine_.deliver_several(incoming, count, outbox_);
    for (std::size_t i = 0; i < count; ++i) engine_.count_received(incoming[i].message.from);
    return good;
  }
  void flush() noexcept override {
    if (!outbox_.empty()) engine_.send_all(outbox_);
  }
  void peer_lost(HostId peer, const char* why) noexcept override { engine_.peer_lost(peer, why); }

 private:
  EngineCore& engine_;
  Outbox outbox_;
};

// Sets a lane and its places aside for a thread; gives both back.
class EngineCore::Ticket {
 public:
  explicit Ticket(EngineCore& engine) noexcept : engine_(engine) {}
  Ticket(const Ticket&) = delete;
  Ticket& operator=(const Ticket&) = delete;
  ~Ticket() {
    if (place_ == kNoPlace) return;
    if (lane_ == kServiceLane) {
      engine_.requests_.give_service_place(place_);
    } else {
      engine_.transport_.give_back(lane_);
    }
  }
  // A lane, where one is free. Does not wait.
  bool take_lane() noexcept {
    lane_ = engine_.transport_.borrow();
    if (lane_ == kServiceLane) return false;
    place_ = Requests::place_of(lane_, 0);
    return true;
  }
  // A lane, or, where all are lent, a place on the service lane. false: the engine has ended.
  bool take() noexcept {
    if (!take_lane()) place_ = engine_.requests_.take_service_place();
    return place_ != kNoPlace;
  }
  Lane lane() const { return lane_; }
  unsigned place() const { return place_; }

 private:
  EngineCore& engine_;
  Lane lane_ = kServiceLane;
  unsigned place_ = kNoPlace;
};

// The requests of one thread: places of its lane, or one place when it has none of its own. They go
// out when it waits.
class EngineCore::Window {
 public:
  explicit Window(EngineCore& engine) noexcept : engine_(engine), ticket_(engine), inbox_(engine) {}

  Lane lane() const { return ticket_.lane(); }
  bool empty() const { return used_ == 0; }
  Outbox& outbox() { return inbox_.outbox(); }
  void flush() { inbox_.flush(); }
  // The frame of this page has no memory yet: it gets it while the answer is under way. Once for
  // each place.
  void prepare_later(Gfn gfn) {
    if (fresh_count_ < fresh_.size()) fresh_[fresh_count_++] = gfn;
  }
  // A place that is free now, or kNoPlace.
  unsigned place() const {
    if (ticket_.place() == kNoPlace) return kNoPlace;
    for (unsigned i = 0; i < size(); ++i) {
      if ((used_ & 1u << i) == 0) return ticket_.place() + i;
    }
    return kNoPlace;
  }
  // For the first request: a place, where a lane is free. With a page's lock held: does not wait.
  unsigned first_place() noexcept {
    return ticket_.place() == kNoPlace && ticket_.take_lane() ? ticket_.place() : kNoPlace;
  }
  void started(unsigned place) { used_ |= 1u << (place - ticket_.place()); }
  // Until place() has one. false: the engine has ended.
  bool make_room() noexcept;
  // Until one request more is over.
  bool wait_some() noexcept;
  Outcome wait_all() noexcept;

 private:
  void prepare_frames() noexcept;
  unsigned size() const { return lane() == kServiceLane ? 1 : Requests::kWindow; }
  std::uint32_t still_pending() const;
  static bool some_over(void* opaque);

  EngineCore& engine_;
  Ticket ticket_;
  Inbox inbox_;  // goes before the ticket: what it sends may be answered on the lane
  std::array<Gfn, Requests::kWindow> fresh_;
  std::size_t fresh_count_ = 0;
  std::uint32_t used_ = 0;  // bit i: a request was started in place i and is not known to be over
};

}  // namespace xenspan::dsm
