// A whole spanning domain in one value: hosts that run the real protocol machine, vCPUs that read,
// write and discard, the frames, the guest mappings and the messages in flight. Both harnesses
// (explorer, random) drive it event by event.
//
// Nothing here is decided by chance or by a clock: the harness lists the events that can happen and
// picks one. Any message in flight may be the next to arrive; one that its host would keep because
// it is early stays in flight until it is not. With Shape::fine each step of an
// event is an event of its own, as it is in the engine, where other hosts run on while a host
// carries out its steps under the page's lock. Not thread-safe; one thread owns a System.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "dsm-rdma/ivy/machine.h"
#include "dsm-rdma/ivy/slots.h"
#include "tests/sim/history.h"
#include "tests/sim/mutation.h"
#include "tests/sim/sim_page.h"

namespace xenspan::dsm::sim {

inline constexpr unsigned kMaxSimHosts = 256;
inline constexpr unsigned kMaxPackedHosts = 8;  // of systems whose states are packed
inline constexpr unsigned kMaxSimPages = 4;
inline constexpr std::uint32_t kTxnsOfVcpu = 256;  // room for 31 ops

enum class Op : std::uint8_t { kRead, kWrite, kDiscard };

struct Shape {
  unsigned hosts = 2, pages = 1, vcpus_per_host = 1;
  unsigned ops = 2;       // a vCPU
  unsigned kinds = 3;     // 2: reads and writes; 3: discards too
  unsigned refaults = 1;  // how often an op may lose its right again before it is used (I3)
  bool fine = false;
  bool repeats = false;  // grants may arrive twice
  bool crash = false;    // one host may stop dead at any moment
  bool wide = false;     // the machine for more than 64 hosts: copysets in rows
  HostId home = 0;
  std::array<HostId, kMaxSimPages> managers{};
  Mutation mutation = Mutation::kNone;
  bool mutate_once = false;  // else at every opportunity
  bool blind = false;        // look at no mapping and no frame: only the history will tell
  // Hosts come and go (system_members.cc); not wide, at most kMaxPackedHosts.
  bool elastic = false;
  bool one_slot = false;  // all pages are of one slot; else each has its own
  unsigned moves = 0;     // so many times a host takes a slot
  int joiner = -1;        // this host joins at some time
  int leaver = -1;        // this one drains and leaves
  HostId heir = 0;        // .. and gives what it has to this one
  // The hosts that are left build the directory anew, and go on (system_rebuild.cc). Elastic, with
  // `crash`, without joiner and leaver.
  bool survive = false;
  HostId victim = 0;  // who may die
  bool idle = false;  // its vCPUs do nothing

  unsigned vcpus() const { return hosts * vcpus_per_host; }
  friend bool operator==(const Shape&, const Shape&) = default;
};

struct Event {
  enum class Kind : std::uint8_t {
    kStart,    // vCPU a starts its next op: Op b on page c
    kRetry,    // vCPU a runs its instruction again
    kDeliver,  // message a arrives
    kStep,     // host a carries out its next step for page b (fine)
    kUnmap,    // host a takes page b out of its guest's mapping, keeping the right (Engine::unmap)
    kRepeat,   // message a, a grant, arrives twice: this is the first time
    kCrash,    // host a stops dead: its mappings, its steps not done yet and what is sent to it are
               // gone
    kLose,     // message a of a dead host will not arrive
    kTake,     // host a asks for slot b
    kHandRow,  // host a hands over the next row of slot b, or says that there are no more
    kJoin,     // host a is there, and has the home's table
    kDrain,    // host a begins to drain
    kGiveUp,   // host a releases page b, or offers it to the heir
    kGiveSlot,    // host a offers slot b to the heir
    kLearn,       // host a learns the table of the host that has drained
    kForgetHome,  // host a hears that the home leaves
    kLeave,       // host a is switched off
    kRebuild,     // host a takes its next step after another one's death
  };
  Kind kind{};
  std::uint16_t a = 0;
  std::uint8_t b = 0, c = 0;
};

class System {
 public:
  void reset(const Shape& shape);

  // Everything that can happen now, except kUnmap, and kRepeat unless the shape asks for it, which
  // a harness adds as it likes.
  void list_events(std::vector<Event>& events) const;
  void run(const Event& event);
  // Whether a kUnmap or kRepeat that the harness thought of can happen now.
  bool can_run(const Event& event) const;
  // The host where a kDeliver or kStep takes place, else -1.
  int goes_to(const Event& event) const;

  bool finished() const;  // every vCPU of a living host has done its ops
  bool crashed() const { return dead_ != kNobody; }
  // A page was lost with the dead host: everybody has stopped.
  bool stopped() const { return rebuild_.stopped; }
  // Nobody has died, or the others have got over it.
  bool whole() const;
  bool nothing_in_flight() const;  // no message, no step left
  // What has gone wrong, or nullptr. Set by run() and check_*().
  const char* violation() const { return violation_; }
  // I1 and I2 for one page; run() calls it for the page of its event.
  void check_page(unsigned page);
  // The directory agrees with the hosts; call when nothing of this page is under way.
  void check_directory(unsigned page);
  bool page_is_quiet(unsigned page) const;

  const History& history() const { return history_; }
  const Shape& shape() const { return shape_; }
  bool mutated() const { return mutated_; }
  std::string describe(const Event& event) const;
  std::string describe_state() const;

  // The state as bytes, equal for states that behave alike: values and numbers that no longer
  // matter are normalised, and hosts that differ by their number alone (not the home, manager of
  // nothing) are put in the order that gives the smallest bytes. unpack() gives such a state.
  void pack(std::vector<std::uint8_t>& bytes);
  void unpack(const Shape& shape, const std::vector<std::uint8_t>& bytes);

 private:
  enum class Mode : std::uint8_t { kIdle, kReady, kWaiting, kBlocked };
  struct Vcpu {
    Mode mode = Mode::kIdle;
    Op op{};
    std::uint8_t page = 0;
    std::uint8_t ops_left = 0;
    std::uint8_t faults = 0;  // of this op
    bool dropped = false;     // a discard whose effect has been seen by its own host
  };
  struct InFlight {
    ivy::Message message;
    Value contents = 0;
    bool repeated = false;  // it has arrived before
  };
  struct Work {  // steps not carried out yet
    std::vector<ivy::Step> steps;
    std::size_t at = 0;
    bool empty() const { return at == steps.size(); }
    void clear() {
      steps.clear();
      at = 0;
    }
  };
  struct Place {  // one page at one host
    SimPage state;
    Right mapped = Right::kInvalid;
    Value frame = 0;
    SimPage::Row row{};
  };

  // ---- hosts come and go (system_members.cc)
  struct Members {
    std::array<std::array<ivy::SlotState, kMaxSimPages>, kMaxPackedHosts> slots{};
    std::array<std::array<std::uint8_t, kMaxSimPages>, kMaxPackedHosts> next_row{}, rows{};
    std::array<std::array<std::uint32_t, kMaxSimPages>, kMaxPackedHosts> awaited{};
    std::array<std::uint8_t, kMaxPackedHosts> own_txns{};
    std::uint8_t moves_left = 0, learned = 0, kept = 0, unanswered = 0;
    bool joined = true, draining = false, left = false;
    std::uint8_t homeless = 0;  // hosts that know that the home leaves
  };
  unsigned slot_of(unsigned page) const { return shape_.one_slot ? 0 : page; }
  unsigned slot_count() const { return shape_.one_slot ? 1 : shape_.pages; }
  void reset_members();
  void clear_run();
  bool present(unsigned host) const;
  bool draining(unsigned host) const;
  bool slot_is_quiet(unsigned slot) const;
  unsigned manager_of(unsigned page) const;
  bool offer_pending(unsigned page) const;
  bool holds_pages(unsigned host) const;
  bool drained() const;
  bool home_leaves() const { return shape_.leaver == static_cast<int>(shape_.home); }
  bool homeless(unsigned host) const { return (members_.homeless >> host & 1) != 0; }
  bool untouched(unsigned host, unsigned page) const;
  bool all_others(unsigned mask) const;
  void list_home_events(std::vector<Event>& events) const;
  bool has_settled(unsigned host) const;
  bool may_leave() const;
  void list_member_events(std::vector<Event>& events) const;
  void run_member_event(const Event& event);
  std::uint32_t own_txn(HostId host);
  void give_up(HostId host, unsigned page);
  void adopt(HostId host, unsigned page);
  void hand_row(HostId host, unsigned slot);
  void do_slot_step(HostId host, unsigned slot, const ivy::SlotStep& step);
  void send_about_slot(const ivy::Message& message);
  void deliver_about_slot(const ivy::Message& message);
  bool expect_row(const ivy::Message& row);
  void count_row(const ivy::Message& row);
  void leave(HostId host);
  void pack_members(std::vector<std::uint8_t>& bytes) const;
  const std::uint8_t* unpack_members(const std::uint8_t* from);

  // ---- a host has died (system_rebuild.cc)
  enum class Stage : std::uint8_t {
    kRuns,
    kFrozen,
    kForgot,
    kClaimed,
    kJudged,
    kAbandoned,
    kThawed
  };
  struct Rebuild {
    std::array<Stage, kMaxPackedHosts> stages{};
    bool stopped = false;
    std::uint8_t involved = 0;  // pages that the dead host had, or was about to get or to give
  };
  bool frozen(unsigned host) const {
    return shape_.survive && rebuild_.stages[host] != Stage::kRuns &&
           rebuild_.stages[host] != Stage::kThawed;
  }
  bool all_left(Stage least) const;
  bool any_left(Stage least) const;
  bool quiet_among_left() const;
  bool may_rebuild(unsigned host) const;
  void note_involved(HostId dead);
  void list_rebuild_events(std::vector<Event>& events) const;
  void run_rebuild(HostId host);
  void freeze(HostId host);
  void forget(HostId host);
  void claim(HostId host);
  void judge_claims_at(HostId host);
  void abandon_at(HostId host);
  void thaw(HostId host);
  bool deliver_after_loss(const ivy::Message& message);
  void take_award(HostId host, const ivy::Message& award);

  HostId host_of(unsigned vcpu) const { return static_cast<HostId>(vcpu / shape_.vcpus_per_host); }
  ivy::View view(unsigned host, unsigned page) const {
    if (!shape_.elastic) return {static_cast<HostId>(host), shape_.home, shape_.managers[page]};
    const ivy::SlotState& slot = members_.slots[host][slot_of(page)];
    return {static_cast<HostId>(host),
            homeless(host) ? kNoHost : shape_.home,
            slot.manager,
            nullptr,
            slot.moves,
            slot.phase == ivy::SlotState::Phase::kComing,
            frozen(host)};
  }
  // With what the machine may change beside the page.
  ivy::View full_view(unsigned host, unsigned page) {
    ivy::View full = view(host, page);
    if (host == full.manager) full.row = places_[host][page].row.data();
    return full;
  }
  bool lists(unsigned manager, unsigned page, unsigned host) const {
    const Place& place = places_[manager][page];
    return place.state.lists(shape_.wide, place.row, static_cast<HostId>(host));
  }
  Right right_at(unsigned host, unsigned page) const {
    return places_[host][page].state.with(
        shape_.wide, [&](const auto& state) { return right_of(state, view(host, page)); });
  }
  bool early(const ivy::Message& message) const;
  void crash(HostId host);
  void find_alike_hosts();
  bool pack_as(const std::array<HostId, kMaxPackedHosts>& order, std::vector<std::uint8_t>& bytes,
               const std::vector<std::uint8_t>* best);
  bool locked(unsigned host, unsigned page) const { return !work_[host][page].empty(); }
  unsigned index_of(const Vcpu& vcpu) const { return static_cast<unsigned>(&vcpu - vcpus_.data()); }
  // Whether the vCPU's instruction can run, or fault, now.
  bool can_attempt(unsigned vcpu, Op op, unsigned page) const;
  bool right_suffices(HostId host, Op op, unsigned page) const;
  std::uint32_t txn_of(unsigned vcpu) const;
  Vcpu* waiting_vcpu(HostId host, unsigned page, std::uint32_t txn);
  void end_op(Vcpu& vcpu);

  void start(unsigned vcpu, Op op, std::uint8_t page);
  void attempt(unsigned vcpu);
  void access(unsigned vcpu);
  void deliver(unsigned index, bool repeat);
  void place_contents(const InFlight& arrived, Place& place);
  void mutate(HostId host, unsigned page, const ivy::Message* cause);
  void take_over_steps(HostId host, unsigned page);
  void run_step(HostId host, unsigned page);
  void send(HostId host, ivy::Message message);
  void grant(HostId host, unsigned page, const ivy::Step& step);
  void drop_frame(HostId host, unsigned page, const ivy::Message& about);
  void complete(HostId host, unsigned page, std::uint32_t txn);
  void record_discard(Vcpu& vcpu);
  // A verdict tells nothing once an error has been planted: only what reaches the guest counts.
  bool strict() const { return shape_.mutation == Mutation::kNone; }
  bool may_mutate() const {
    return shape_.mutation != Mutation::kNone && !(mutated_ && shape_.mutate_once);
  }
  void fail(const char* what) {
    if (violation_ == nullptr) violation_ = what;
  }

  static constexpr HostId kNobody = 0xffff;

  Shape shape_;
  HostId dead_ = kNobody;
  // The ways to number the hosts anew: at each old number the new one.
  std::vector<std::array<HostId, kMaxPackedHosts>> orders_;
  std::vector<std::uint8_t> other_bytes_;
  std::vector<std::array<Place, kMaxSimPages>> places_;
  std::vector<std::array<Work, kMaxSimPages>> work_;
  Value current_[kMaxSimPages] = {};
  std::vector<Vcpu> vcpus_;
  std::vector<InFlight> in_flight_;
  Value last_value_ = 0;
  bool mutated_ = false;
  const char* violation_ = nullptr;
  Members members_;
  Rebuild rebuild_;
  History history_;
  ivy::WideSteps steps_;
};

}  // namespace xenspan::dsm::sim
