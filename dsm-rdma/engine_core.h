// The Engine's one implementation. Internal to dsm-rdma; see engine.h for the contract.
//
// engine.cc: faults, waiting, stop, statistics. engine_protocol.cc: messages and the steps the
// machine asks for. engine_range.cc: many pages at once. engine_window.cc: one thread's requests.
// engine_prefetch.cc: what is asked for before it is touched. engine_members.cc: hosts come and go.
// engine_rebuild.cc: another host has died. engine_runs.cc: messages about neighbouring pages that
// have come together. engine_one_by_one.cc: invalidations in turn, to compare with. Everything done
// to a page is done under its entry's lock, in the order the machine decided. Messages are put into
// the thread's outbox under that lock, after the mapping has changed, and leave a little later
// (outbox.h).
#pragma once

#include <pthread.h>

#include <array>
#include <atomic>
#include <bitset>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "dsm-rdma/counters.h"
#include "dsm-rdma/engine.h"
#include "dsm-rdma/hold_queue.h"
#include "dsm-rdma/ivy/machine.h"
#include "dsm-rdma/live_slots.h"
#include "dsm-rdma/migratory.h"
#include "dsm-rdma/one_by_one.h"
#include "dsm-rdma/outbox.h"
#include "dsm-rdma/page_table.h"
#include "dsm-rdma/parked.h"
#include "dsm-rdma/prefetch.h"
#include "dsm-rdma/requests.h"
#include "dsm-rdma/returning.h"
#include "dsm-rdma/sharing.h"

namespace xenspan::dsm {

class EngineCore final : public Engine {
 public:
  EngineCore(const EngineConfig& config, PageBackend& backend, Transport& transport,
             std::function<void(const std::string&)> on_stop);
  Status prepare();

  using Engine::acquire;
  Outcome acquire(Gfn gfn, Right wanted, Touch touch) noexcept override;
  Outcome discard(Gfn first, std::uint64_t count) noexcept override;
  Outcome acquire_range(Gfn first, std::uint64_t count, Right wanted) noexcept override;
  void unmap(Gfn first, std::uint64_t count) noexcept override;
  Right right(Gfn gfn) const noexcept override;
  void serve() override;
  void stop(const std::string& cause) noexcept override;
  std::string stop_cause() const override;
  EngineStats stats(std::size_t hottest) const override;
  Sharing sharing(std::size_t pages) const override { return sharing_.report(pages); }
  Holdings holdings(HostMask lost) const override;

  SlotTable slots() const override;
  void learn_slots(const SlotTable& table) noexcept override;
  HostMask members() const noexcept override { return members_.load(); }
  Status add_peer(HostId host, const std::string& name) override;
  Status take_slots(HostMask live) override;
  Status drain(HostMask heirs) override;
  Status settle() override;
  void forget_home() noexcept override;
  Status remove_peer(HostId host) override;

  Status freeze(HostMask lost) override;
  PeerTraffic peer_traffic() override;
  Status forget(const SlotTable& table, Epoch epoch) override;
  Status claim() override;
  Result<std::vector<PageRun>> judge() override;
  Status abandon() override;
  Status thaw() override;

 private:
  // What a fault or a range asks for, page by page.
  struct Wish {
    Right wanted;
    Purpose purpose;
    bool discard() const { return purpose == Purpose::kDiscard; }
  };
  enum class Begun : std::uint8_t {
    kHeld,       // nothing to wait for
    kStarted,    // the request in the given place is under way
    kPending,    // another local request for the page is; wait for `bell` to leave `seen`
    kNeedPlace,  // a request is needed, no place was given, and the first one is not free either
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

  // One thread's part (engine_window.h).
  class Inbox;
  class Ticket;
  class Window;
  // The messages one event sets off.
  class Event;
  // What a message does to the guest's mapping (engine_runs.cc).
  struct Change;

  ivy::View view(Gfn gfn) const noexcept {
    const LiveSlots::Place place = slots_.of(gfn);
    return {config_.self,
            home_.load(std::memory_order_relaxed),
            place.manager,
            nullptr,
            place.moves,
            place.arriving(),
            stage_.load() != Stage::kRuns};
  }
  bool in_range(Gfn first, std::uint64_t count) noexcept;
  bool ended() const noexcept { return requests_.ended(); }
  bool without(Feature feature) const noexcept { return config_.without.has(feature); }

  Beginning begin(Gfn gfn, Wish wish, Window& window, unsigned& place) noexcept;
  Begun begin_request(PageEntry& entry, Gfn gfn, Wish wish, Window& window,
                      unsigned place) noexcept;
  void prepare_frame(Gfn gfn) noexcept;
  void ask_early(Gfn gfn, Right wanted, Touch touch, Window& window) noexcept;
  Predictor::Start start_early(Ask ask, bool sampled, Window& window) noexcept;
  void ask_ahead(Gfn gfn, Window& window) noexcept;
  Predictor::Start start_ahead(Ask ask, bool marker, Outbox& outbox) noexcept;
  Predictor::Start start_if_free(Gfn gfn, Wish wish, Outbox& outbox) noexcept;
  Predictor::Start start_unwaited(PageEntry& entry, Gfn gfn, Wish wish, Outbox& outbox) noexcept;
  void ask_later(const ivy::Message& lost) noexcept;
  void ask_again(const ivy::Message& reminder, Outbox& outbox) noexcept;
  void note_fault(FaultKind kind, Gfn gfn, Touch touch, unsigned place, std::uint64_t start_ns,
                  std::uint64_t end_ns) noexcept;
  Right to_ask_for(Gfn gfn, Right wanted, Touch touch) noexcept;
  bool maps_early(Gfn gfn, Right right, Purpose purpose) noexcept;
  Gfn map_fresh(PageEntry& entry, Gfn gfn) noexcept;
  bool take_fresh(Gfn gfn) noexcept;

  std::byte* place(const ivy::Message& grant) noexcept;
  bool deliver(const ivy::Message& message, Outbox& outbox) noexcept;
  bool deliver_several(const Incoming* incoming, std::size_t count, Outbox& outbox) noexcept;
  bool deliver_run(const Incoming* incoming, std::size_t& count, Outbox& outbox) noexcept;
  bool deliver_one(PageEntry& entry, const Incoming& incoming, bool mapped,
                   Outbox& outbox) noexcept;
  Change change_for(PageEntry& entry, const Incoming& incoming) noexcept;
  bool change_run(Gfn first, const Incoming* incoming, const Change& change, std::uint32_t count,
                  Outbox& outbox) noexcept;
  bool empty_run(Gfn first, std::uint32_t count, bool own, Outbox& outbox) noexcept;
  bool may_drop(bool own, Outbox& outbox, bool& good) noexcept;
  void peer_lost(HostId peer, const char* why) noexcept;
  bool awaits(const PageEntry& entry, const ivy::Message& grant) const noexcept;
  bool is_late(const ivy::Message& message) const noexcept;
  bool feed(PageEntry& entry, const ivy::Message& first, bool may_hold, Outbox& outbox,
            bool mapped = false) noexcept;
  bool feed_all(PageEntry& entry, Event& event, ivy::Steps& steps, bool may_hold) noexcept;
  bool park(PageEntry& entry, const ivy::Message& message) noexcept;
  bool release_parked(PageEntry& entry, Gfn gfn, Event& event) noexcept;
  std::uint64_t hold_until(const PageEntry& entry, const ivy::Message& message) const noexcept;
  bool hold_back(const PageEntry& entry, const ivy::Message& message) noexcept;
  void clear_contents(PageEntry& entry, const ivy::Message& grant) noexcept;
  bool carry_out(PageEntry& entry, const ivy::Steps& steps, Event& event) noexcept;
  bool drop(PageEntry& entry, Gfn gfn, bool withdrawn) noexcept;
  bool drop_for(PageEntry& entry, const ivy::Message& about, bool withdrawn,
                Outbox& outbox) noexcept;
  bool drop_lost(PageEntry& entry, Gfn gfn) noexcept;
  bool grant(PageEntry& entry, const ivy::Message& about, Right right, bool mapped) noexcept;
  bool send(PageEntry& entry, const ivy::Message& message, Event& event) noexcept;
  bool send_now(PageEntry& entry, ivy::Message message, Event& event) noexcept;
  bool in_turn(PageEntry& entry, const ivy::Message& message, Event& event) noexcept;
  bool take_turn(PageEntry& entry, const ivy::Message& ack, Outbox& outbox) noexcept;
  void complete(const ivy::Message& about) noexcept;
  void count(const ivy::Message& message) noexcept;
  long serve_held(Inbox& inbox) noexcept;
  bool send_all(Outbox& outbox) noexcept;
  bool serving() const noexcept {
    return ::pthread_equal(server_.load(std::memory_order_relaxed), ::pthread_self()) != 0;
  }

  Outcome run_range(Gfn first, std::uint64_t count, Wish wish) noexcept;
  Gfn first_of_range(Gfn gfn, Gfn end, Wish wish) const noexcept;
  Gfn ask_for_range(Gfn gfn, Gfn end, Wish wish, Window& window) noexcept;
  Gfn discard_held(Gfn gfn, Gfn end) noexcept;
  template <typename Belongs>
  Gfn take_run(Gfn first, Gfn end, Belongs belongs) noexcept;
  void release_run(Gfn first, Gfn end) noexcept;

  // engine_rebuild.cc
  enum class Stage : std::uint8_t { kRuns, kFrozen, kForgot };
  template <typename Call>
  Status each_page(Stage stage, Call call);
  bool is_lost(HostId host) const noexcept {
    return host < kMaxHosts && (lost_.load(std::memory_order_relaxed) & mask_of(host)) != 0;
  }
  bool survives() const noexcept { return static_cast<bool>(config_.on_peer_lost); }
  bool take_in_claim(const ivy::Message& row, Outbox& outbox) noexcept;
  bool take_award(const ivy::Message& award, Outbox& outbox) noexcept;
  void count_sent(HostId to) noexcept { sent_[to].add(); }
  void count_received(HostId from) noexcept { received_[from % kMaxHosts].add(); }

  bool deliver_membership(const ivy::Message& message, Outbox& outbox) noexcept;
  bool take_in_row(const ivy::Message& row, Outbox& outbox) noexcept;
  void post(const ivy::Message& message, Outbox& outbox) noexcept;
  void do_slot_step(unsigned slot, const ivy::SlotStep& step, Outbox& outbox) noexcept;
  void serve_slots(Outbox& outbox) noexcept;
  bool give_row(Gfn gfn, Outbox& outbox) noexcept;
  void look_again(Gfn gfn, Outbox& outbox) noexcept;
  void look_at_parked(Outbox& outbox) noexcept;
  void serve_asked(unsigned slot, Outbox& outbox) noexcept;
  bool adopt(Gfn gfn, Outbox& outbox) noexcept;
  void offer(Gfn gfn, Outbox& outbox) noexcept;
  bool give_up(Gfn gfn, Outbox& outbox) noexcept;
  bool holds(Gfn gfn) const noexcept;
  bool give_up_all(std::vector<Gfn>& pages);
  bool drain_pages();
  bool drain_slots(HostMask heirs);
  Status check_hosts(HostMask hosts, bool with_self, const char* what) const;
  Status stopped_error() const;
  unsigned most_hosts() const {
    return config_.most_hosts != 0 ? config_.most_hosts : config_.hosts;
  }

  bool backend_failed(int error, const char* what, Gfn gfn) noexcept;
  std::string name_of(HostId host) const;

  const EngineConfig config_;
  PageBackend& backend_;
  Transport& transport_;
  const std::function<void(const std::string&)> on_stop_;
  LiveSlots slots_;
  std::bitset<SlotTable::kSlots> going_, arrived_;  // the service thread's
  std::atomic<HostMask> members_;
  std::atomic<HostId> home_;  // kNoHost: it leaves, or has left
  std::atomic<HostMask> heirs_{0};
  std::atomic<unsigned> releases_{0};  // of this host, not answered
  std::atomic<bool> draining_{false}, drained_{false};
  std::atomic<HostMask> lost_{0};
  std::atomic<Stage> stage_{Stage::kRuns};
  std::atomic<std::uint32_t> rebuilt_{0};  // how often requests have been abandoned
  std::atomic<std::uint64_t> rounds_{0};   // of the service thread
  std::array<Counter, kMaxHosts> sent_, received_;
  PageTable table_;
  ParkedMessages parked_;
  std::atomic<bool> parked_left_{false};  // of a page, more than could be looked at
  Requests requests_;
  HoldQueue held_;
  Predictor predictor_;
  MigratoryPages migratory_;
  SharingTable sharing_;
  ReturningPages returning_;
  std::unique_ptr<OneByOne> one_by_one_;  // where Feature::kParallel is off
  Counters counters_;
  std::atomic<std::size_t> pages_unsent_{0};  // in all outboxes
  std::atomic<pthread_t> server_{};           // the thread in serve()
  mutable std::mutex cause_lock_;
  std::string cause_;  // GUARDED_BY(cause_lock_)
  mutable std::mutex names_lock_;
  std::vector<std::string> names_;  // GUARDED_BY(names_lock_)
};

// What one event sets off: messages to this host itself, fed back one after the other, and messages
// to others, which are left in the thread's outbox.
class EngineCore::Event {
 public:
  // `mapped`: what the first message does to the guest's mapping has been done already.
  explicit Event(Outbox& outbox, bool mapped = false) noexcept : outbox_(outbox), mapped_(mapped) {}
  Outbox& outbox() noexcept { return outbox_; }
  bool mapped() const noexcept { return mapped_; }
  bool take_mapped() noexcept { return std::exchange(mapped_, false); }
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

 private:
  Outbox& outbox_;
  // The longest chain here: request, forward or invalidate, grant; and messages that were parked.
  std::array<ivy::Message, 16> own_;
  std::size_t taken_ = 0, filled_ = 0;
  bool mapped_;
};

}  // namespace xenspan::dsm
