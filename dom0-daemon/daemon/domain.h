// One domain at its home: brings its slices up on all hosts, follows it while it runs, and takes it
// down everywhere.
//
//   creating: every host starts its slice -> all listen -> all get the ports -> all are ready ->
//   the home's slice starts running:  until the program exits, a slice fails, a host is lost, or
//   somebody destroys the domain stopping: every slice is told to stop and collected; a host that
//   is lost counts as collected over:     the record stays for a while
//   given away: the home's role has moved, and this object is the old home's (domain_role.cc)
//
// The first cause decides how the domain ends, except that a slice found killed by a signal
// explains the others' "lost host" better than they do. Threading: the loop's thread. Ownership:
// Domains owns it; Slices (local or remote) are reached through the SliceLinks interface.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "dom0-daemon/daemon/domain_loss.h"
#include "dom0-daemon/daemon/domain_record.h"
#include "dom0-daemon/daemon/event_loop.h"
#include "dom0-daemon/daemon/membership.h"
#include "dom0-daemon/daemon/placement.h"
#include "dom0-daemon/daemon/role_state.h"
#include "dom0-daemon/daemon/slice_process.h"
#include "dom0-daemon/daemon/user.h"
#include "dom0-daemon/daemon/votes.h"

namespace xenspan::daemon {

struct Agreed;

// How the home reaches the slices of a domain, wherever they are.
class SliceLinks {
 public:
  virtual ~SliceLinks() = default;
  // Events and the end come back through Domain::slice_event and slice_ended. `fds` only for this
  // host's slice.
  virtual Status create_slice(const std::string& host, const std::string& uuid, const User& user,
                              Json create, std::vector<UniqueFd> fds,
                              std::uint64_t promised_memory) = 0;
  virtual void send_to_slice(const std::string& host, const std::string& uuid,
                             const Json& message) = 0;
  // The cores of the domain's vCPUs on that host are now these.
  virtual void set_slice_cores(const std::string& host, const std::string& uuid,
                               const std::vector<int>& cores) = 0;
  virtual void stop_slice(const std::string& host, const std::string& uuid,
                          const std::string& cause) = 0;
  // Names of what the program has open here that no other host can have (bound_files.h).
  virtual std::vector<std::string> bound_here(const std::string& uuid) const = 0;
  // The home's role moves: that host is to obey `heir` when it claims the slice; answered with
  // Domain::heir_known().
  virtual void name_heir(const std::string& host, const std::string& uuid,
                         const std::string& heir) = 0;
  // The heir's daemon goes on with the domain: the slice here obeys it.
  virtual void follow(const std::string& uuid, const std::string& heir) = 0;
  // The heir: that host's slice obeys this daemon from now on.
  virtual void claim_slice(const std::string& host, const std::string& uuid) = 0;
};

// What the user asked for, checked.
struct DomainSpec {
  std::string uuid;
  std::string name;
  User user;
  Placement placement;
  std::string program;
  std::vector<std::string> argv;
  std::vector<std::string> env;
  std::string cwd;
  unsigned umask = 022;
  std::vector<int> fd_numbers;
  std::vector<UniqueFd> fds;
  std::chrono::milliseconds start_within{30000};
  bool stats = false;  // collect statistics when the program has ended
  std::uint64_t prefetch = 0;
  std::vector<std::string> without;  // dsm-rdma/features.h
  xenstore::Transport transport = xenstore::Transport::kNone;
  xenstore::Backend kind = xenstore::Backend::kUsermode;
  Json xen;          // what `create` says under this name, for a domain under Xen
  std::string note;  // the record's error from the beginning: what it does without
  xenstore::Policy policy = xenstore::Policy::kSpread;
  std::chrono::milliseconds lost_after{3000};
  std::string stats_host;  // where the command waits that started it; "": nobody's
};

class Domain {
 public:
  // How a domain ended, for the command that waits for it.
  struct Outcome {
    int status = 0;       // exit status for the shell
    int signal = 0;       // that ended the program, 0: none
    bool failed = false;  // xenspan's own failure
    std::string message;  // crash report or cause
    Json stats;           // null when not wanted
  };
  // What a command waits for: an answer of control.md.
  using MoveDone = std::function<void(Result<Json> moved)>;
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void domain_changed(Domain& domain) = 0;
    virtual void domain_over(Domain& domain) = 0;
    // What a host says of itself; or why it cannot become a member: it is unknown, or down.
    virtual Result<HostRecord> find_host(const std::string& name) = 0;
    // A request for a member was taken up, or refused with the reason.
    virtual void member_answered(Domain& domain, const Membership::Answer& answer) = 0;
    // Under Xen: why this host cannot hold a slice, or success; and what has to be there before
    // its slice is created, with `done` once it is, or cannot be.
    virtual Status may_hold_slice(const Domain& domain, const HostRecord& host) = 0;
    virtual void prepare_slice(const Domain& domain, const std::string& host,
                               std::function<void(Status done)> done) = 0;
    virtual Votes& votes() = 0;
    // The daemon of the heir is to go on with the domain; `done` once it says that it does.
    virtual void give_away(Domain& domain, const std::string& heir, Json state,
                           std::function<void(Status done)> done) = 0;
    // It does: this object is over, `waits` are commands that wait for a member.
    virtual void given_away(Domain& domain, const std::string& heir,
                            std::vector<std::pair<std::string, MoveDone>> waits) = 0;
  };
  using StatsDone = std::function<void(Result<Json> stats)>;

  Domain(EventLoop& loop, SliceLinks& links, Handler& handler, DomainSpec spec);
  // At the heir: a running domain whose home is this host from now on. take_role() begins.
  Domain(EventLoop& loop, SliceLinks& links, Handler& handler, const RoleState& state);
  ~Domain();
  Domain(const Domain&) = delete;
  Domain& operator=(const Domain&) = delete;

  void start();
  void take_role();
  const DomainRecord& record() const { return record_; }
  const Outcome& outcome() const { return outcome_; }
  bool stopping() const { return phase_ >= Phase::kStopping; }

  void slice_event(const std::string& host, const Json& event);
  void slice_ended(const std::string& host, const SliceEnd& end);
  // A slice that could not be created.
  void slice_failed(const std::string& host, const std::string& error);
  void host_lost(const std::string& host, const std::string& cause);
  // The domain's hosts agree on who they are.
  void agreed(const Agreed& agreed);
  // That host will obey the heir.
  void heir_known(const std::string& host);

  void signal(int number);
  // `by` finishes "destroyed by ".
  void destroy(const std::string& by);
  // xenspan's own failure with this cause.
  void fail(int status, const std::string& cause);
  void collect_stats(StatsDone done);
  // Moves a vCPU to a place that the caller has checked and chosen; `core` belongs to that host.
  // `done` gets threads, waiting, us (of slice/control.md).
  void migrate(std::uint32_t vcpu, const std::string& host, int core, MoveDone done);
  // The policy has moved a vCPU: what and why, for everybody to read.
  void tell_move(std::string last_move);

  // Hosts come and go (domain_members.cc). Somebody wrote a request for a host into this host's
  // xenstore, or took one away again.
  void ask_member(const std::string& host, const std::string& word);
  void withdraw_member(const std::string& host);
  // For a command that has written such a request: when it is refused, or all that it asked for
  // has happened; `done` gets domain, host, state.
  void await_member(const std::string& host, MoveDone done);
  // The request could not be written.
  void member_unwritten(const std::string& host, const Error& error);
  const Membership& membership() const { return membership_; }
  const std::string& stats_host() const { return spec_.stats_host; }

 private:
  enum class Phase { kCreating, kReady, kRunning, kExited, kStopping, kOver, kGiven };
  struct Member {
    int port = 0;
    bool ready = false;
    bool gone = false;
    std::string cause;
    bool ended = false;             // gone, and certainly its process too; `lost`: no more of it
    bool lost = false;              // the domain goes on without it
    bool joining = false;           // while the domain runs, and not connected to all yet
    std::uint32_t incarnation = 0;  // of the hosts that have had this number
  };
  struct StatsRequest {
    std::map<std::string, Json> by_host;
    std::vector<std::string> waiting;
    StatsDone done;
    std::unique_ptr<Timer> limit;
  };

  Domain(EventLoop& loop, SliceLinks& links, Handler& handler, DomainSpec spec,
         std::size_t first_hosts);
  int index_of(const std::string& host) const;
  const std::string& home() const { return record_.home; }
  Json create_message(int index) const;
  void on_listening(int index, const Json& event);
  void on_ready(int index);
  void on_exited(const Json& event);
  void on_failed(int index, const Json& event);
  void on_stats(int index, const Json& event);
  void on_resolved(const Json& event);
  void on_migrated(const Json& event);
  // False: the domain is not at a point where its loss is a story.
  bool lose(int index, const std::string& cause, DomainLoss::Source source);
  int lost_host_in(const std::string& error) const;
  bool concerns(const std::string& host) const;
  void ask_holdings();
  void on_holdings(int index, const Json& event);
  void go_on_with_loss();
  void conclude_loss(const std::vector<std::string>& names);
  void loss_overdue();
  void stop_for_loss();
  void on_peer_lost(int index, const Json& event);
  void begin_loss();
  void note_unreached(DomainLoss::Unreached unreached);
  void wait_for_evidence();
  std::vector<DomainLoss::Unreached> unexplained() const;
  bool is_lost(int index) const;
  // domain_survival.cc
  bool may_go_on() const;
  void rebuild();
  void limit_rebuild();
  void rebuild_step(const std::vector<int>& to, Json message,
                    std::function<void(const Json& answer)> then);
  void rebuild_failed(const std::string& why);
  void leave_no_thread(std::size_t next);
  void freeze_the_rest();
  void when_quiet(std::function<void()> then);
  void make_directory(const std::string& slots);
  void judge_pages();
  void go_on_without();
  void place_vcpu(std::uint32_t vcpu, int index, int core);
  // Who knows which pages somebody has touched; "": nobody any more.
  std::string pages_home() const {
    return engine_home_ < 0 ? "" : record_.members[static_cast<std::size_t>(engine_home_)].host;
  }
  void order_home(const Json& message);
  void send_all(const Json& message);
  void stop_all(const std::string& cause);
  void member_gone(int index);
  void set_member_state(int index, xenstore::MemberState state);
  void stats_complete(std::uint64_t id);
  void stats_finish(std::uint64_t id, const std::vector<std::string>& names);
  void changed();
  // domain_members.cc
  struct MemberWait {
    std::string host;
    bool taken = false;  // its request has been
    MoveDone done;
  };
  struct Order {
    std::set<int> waiting;
    std::uint64_t turn = 0;
    std::string error;
    Json answers = Json::object();  // by index
    MoveDone then;
    std::unique_ptr<Timer> limit;
  };
  void open_members();
  void close_members();
  Status may_join(const std::string& host);
  Status room_for(const std::string& host) const;
  std::vector<MemberWait> take_waits(const std::string& host);
  void tell_answers();
  void members_changed();
  void settle_waits();
  void begin_member_step();
  void run_member_step();
  void member_done();
  void member_failed(const std::string& why);
  void member_stuck(const std::string& why);
  std::vector<int> partners(const std::string& without) const;
  std::vector<HostRecord> active_hosts(const std::string& without) const;
  std::vector<std::string> vcpu_hosts() const;
  void order(const std::vector<int>& to, Json message, std::chrono::milliseconds limit,
             MoveDone then);
  void on_order_done(int index, const Json& event);
  void finish_order(std::uint64_t id, Result<Json> answer);
  // By index, of an order to several slices.
  static Json all_answers(const Json& answer);
  void number_host(const std::string& host);
  void start_member();
  void create_member_slice();
  Json join_message(int index) const;
  bool member_event(int index, const std::string& kind, const Json& event);
  bool join_failed(int index, const std::string& why);
  void connect_member();
  void member_connected();
  void undo_member();
  void end_undo();
  void share_vcpus();
  void vacate_member();
  void move_member_vcpu(std::uint32_t vcpu, const std::string& host);
  void hand_over();
  void disconnect_member();
  void end_member();
  bool member_ended(int index, const std::string& cause);
  // domain_role.cc
  Result<std::string> heir_of_home() const;
  void move_role();
  void hold_calls(int looks);
  void give_home();
  void tell_home(const std::vector<int>& others);
  void note_signals(const Json& answer);
  void role_stays(const std::string& why);
  void vote_for_heir();
  void give_away();
  RoleState role_state() const;
  void home_leaves(const std::vector<int>& others);
  void tell_slots(const std::vector<int>& others);

  EventLoop& loop_;
  SliceLinks& links_;
  Handler& handler_;
  DomainSpec spec_;
  std::string secret_;
  DomainRecord record_;
  std::vector<Member> members_;
  Phase phase_ = Phase::kCreating;
  Outcome outcome_;
  bool better_cause_wanted_ = false;
  std::map<std::uint64_t, StatsRequest> stats_;
  std::uint64_t next_stats_ = 1;
  struct Move {
    std::uint32_t vcpu;
    int host, core;
    MoveDone done;
  };
  std::map<std::uint64_t, Move> moves_;
  std::uint64_t next_move_ = 1;
  std::unique_ptr<Timer> limit_;
  std::size_t first_hosts_;
  Membership membership_;
  Membership::Step member_step_ = Membership::Step::kNone;  // that is being carried out, for ..
  std::string member_host_;
  std::uint64_t member_turn_ = 0;  // counts them
  std::vector<MemberWait> member_waits_;
  std::map<std::uint64_t, Order> orders_;
  std::uint64_t next_order_ = 1;
  std::vector<int> told_peers_;  // of the host that joins
  bool peers_connected_ = false;
  bool admitting_ = false;
  std::unique_ptr<Timer> member_limit_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  std::unique_ptr<DomainLoss> loss_;
  std::uint64_t epoch_ = 1;  // of what slices send each other
  int home_index_ = 0;       // whose slice has the program's files, and takes orders for all
  int engine_home_ = 0;      // who has the pages that nobody has touched; -1: it has left
  std::set<std::string> heir_unknown_to_;
  std::vector<std::uint64_t> late_signals_;
};

}  // namespace xenspan::daemon
