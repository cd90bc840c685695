// The Engine's one implementation. Internal to dsm-rdma; see engine.h for the contract.
//
// engine.cc: faults, waiting, stop, statistics. engine_protocol.cc: messages and the steps the
// machine asks for. engine_range.cc: many pages at once. Everything done to a page is done under
// its entry's lock, sends included: what the machine decided and what the mapping and the wire see
// can therefore never be in different orders.
#pragma once

#include <pthread.h>

#include <array>
#include <atomic>
#include <mutex>
#include <string>

#include "dsm-rdma/counters.h"
#include "dsm-rdma/engine.h"
#include "dsm-rdma/hold_queue.h"
#include "dsm-rdma/ivy/machine.h"
#include "dsm-rdma/page_table.h"
#include "dsm-rdma/parked.h"
#include "dsm-rdma/requests.h"
#include "dsm-rdma/slot_table.h"

namespace xenspan::dsm {

class EngineCore final : public Engine {
 public:
  EngineCore(const EngineConfig& config, PageBackend& backend, Transport& transport,
             std::function<void(const std::string&)> on_stop);
  Status prepare();

  Outcome acquire(Gfn gfn, Right wanted) noexcept override;
  Outcome discard(Gfn first, std::uint64_t count) noexcept override;
  Outcome acquire_range(Gfn first, std::uint64_t count, Right wanted) noexcept override;
  void unmap(Gfn first, std::uint64_t count) noexcept override;
  Right right(Gfn gfn) const noexcept override;
  void serve() override;
  void stop(const std::string& cause) noexcept override;
  std::string stop_cause() const override;
  EngineStats stats(std::size_t hottest) const override;

  std::byte* place(const ivy::Message& grant) noexcept override;
  bool deliver(const ivy::Message& message) noexcept override;
  void peer_lost(HostId peer, const char* why) noexcept override;

 private:
  // What a fault or a range asks for, page by page.
  struct Wish {
    Right wanted;
    bool discard;
  };
  enum class Begun : std::uint8_t {
    kHeld,       // nothing to wait for
    kStarted,    // the request in the given place is under way
    kPending,    // another local request for the page is; wait for `bell` to leave `seen`
    kNeedPlace,  // a request is needed and no place was given
    kFailed,     // the engine has stopped
  };
  struct Beginning {
    Begun begun;
    FaultKind kind;
    std::uint32_t seen;  // kPending
    Gfn next;            // the first page after those that are mapped now (kHeld)
    bool remap;          // kHeld, and it was no first touch
    bool fresh;          // kStarted, and the frame is likely to have no memory yet
  };
  static constexpr unsigned kNoPlace = Requests::kPlaces;

  // Sets a lane and a place aside for a thread; gives both back.
  class Ticket;
  // Up to sixteen requests of one thread (engine_range.cc).
  class Window;
  // The messages one event sets off.
  class Event;

  ivy::View view(Gfn gfn) const noexcept {
    return {config_.self, config_.home, slots_.manager(gfn)};
  }
  bool in_range(Gfn first, std::uint64_t count) noexcept;
  bool ended() const noexcept { return requests_.ended(); }

  Beginning begin(Gfn gfn, Wish wish, Lane lane, unsigned place) noexcept;
  Begun begin_request(PageEntry& entry, Gfn gfn, Wish wish, Lane lane, unsigned place) noexcept;
  Outcome wait_for(Lane lane, unsigned place) noexcept;
  void prepare_frame(Gfn gfn) noexcept;
  Gfn map_fresh(PageEntry& entry, Gfn gfn) noexcept;
  bool take_fresh(Gfn gfn) noexcept;

  bool feed(PageEntry& entry, const ivy::Message& first, bool may_hold) noexcept;
  bool feed_all(PageEntry& entry, Event& event, ivy::Steps& steps, bool may_hold) noexcept;
  bool park(PageEntry& entry, const ivy::Message& message) noexcept;
  bool release_parked(PageEntry& entry, Gfn gfn, Event& event) noexcept;
  bool hold_back(const PageEntry& entry, const ivy::Message& message) noexcept;
  void clear_contents(PageEntry& entry, const ivy::Message& grant) noexcept;
  bool carry_out(PageEntry& entry, const ivy::Steps& steps, Event& event) noexcept;
  bool drop(PageEntry& entry, Gfn gfn, bool withdrawn) noexcept;
  bool grant(PageEntry& entry, const ivy::Message& about, Right right) noexcept;
  bool send(PageEntry& entry, const ivy::Message& message, Event& event) noexcept;
  void complete(const ivy::Message& about) noexcept;
  void count(const ivy::Message& message) noexcept;
  long serve_held() noexcept;
  bool send_page(PageEntry& entry, ivy::Message grant) noexcept;
  bool send_outgoing(const ivy::Message* messages, std::size_t count) noexcept;
  bool not_sent(const ivy::Message& message, int error) noexcept;
  bool serving() const noexcept {
    return ::pthread_equal(server_.load(std::memory_order_relaxed), ::pthread_self()) != 0;
  }

  Outcome run_range(Gfn first, std::uint64_t count, Wish wish) noexcept;
  Gfn discard_held(Gfn gfn, Gfn end) noexcept;
  template <typename Belongs>
  Gfn take_run(Gfn first, Gfn end, Belongs belongs) noexcept;
  void release_run(Gfn first, Gfn end) noexcept;

  bool backend_failed(int error, const char* what, Gfn gfn) noexcept;
  std::string name_of(HostId host) const;

  const EngineConfig config_;
  PageBackend& backend_;
  Transport& transport_;
  const std::function<void(const std::string&)> on_stop_;
  const SlotTable slots_;
  PageTable table_;
  ParkedMessages parked_;
  Requests requests_;
  HoldQueue held_;
  Counters counters_;
  std::atomic<pthread_t> server_{};  // the thread in serve()
  mutable std::mutex cause_lock_;
  std::string cause_;  // GUARDED_BY(cause_lock_)
};

// Lives on the stack of the thread that faults.
class EngineCore::Ticket {
 public:
  explicit Ticket(EngineCore& engine) : engine_(engine) {}
  Ticket(const Ticket&) = delete;
  ~Ticket() {
    if (place_ == kNoPlace) return;
    if (lane_ == kServiceLane) {
      engine_.requests_.give_service_place(place_);
    } else {
      engine_.transport_.give_back(lane_);
    }
  }
  // false: the engine has ended.
  bool take() noexcept {
    lane_ = engine_.transport_.borrow();
    place_ = lane_ == kServiceLane ? engine_.requests_.take_service_place()
                                   : Requests::place_of(lane_, 0);
    return place_ != kNoPlace;
  }
  Lane lane() const { return lane_; }
  unsigned place() const { return place_; }

 private:
  EngineCore& engine_;
  Lane lane_ = kServiceLane;
  unsigned place_ = kNoPlace;
};

// What one event sets off: messages to this host itself, fed back one after the other, and messages
// to others without a page, which leave together at its end. (A page is read and sent at its step,
// before the frame may be dropped.)
class EngineCore::Event {
 public:
  bool push(const ivy::Message& message) noexcept {
    if (filled_ == own_.size()) return false;
    own_[filled_++] = message;
    return true;
  }
  bool pop(ivy::Message& message) noexcept {
    if (taken_ == filled_) return false;
    message = own_[taken_++];
    return true;
  }
  // false: no room, send what there is first.
  bool put_off(const ivy::Message& message) noexcept {
    if (outgoing_count_ == outgoing_.size()) return false;
    outgoing_[outgoing_count_++] = message;
    return true;
  }
  const ivy::Message* outgoing() const { return outgoing_.data(); }
  std::size_t outgoing_count() const { return outgoing_count_; }
  void clear_outgoing() { outgoing_count_ = 0; }

 private:
  // The longest chain here: request, forward or invalidate, grant; and messages that were parked.
  std::array<ivy::Message, 16> own_;
  std::array<ivy::Message, 8> outgoing_;
  std::size_t taken_ = 0, filled_ = 0, outgoing_count_ = 0;
};

}  // namespace xenspan::dsm
