// One slice of a user-mode domain in this process: guest view, layout cache, engine, threads, and
// at the home the Home.
//
// The worker (dom0-daemon/slice/) creates it, joins it to the other slices, and at the home runs
// the program. Threading: set-up and run() from the worker's main thread; start_thread, forbid and
// kick from control; the rest from guest threads. Ownership: owns everything of the domain in this
// process. It is never destroyed: the process ends instead.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/hypervisor/usermode/call_gate.h"
#include "dom0-daemon/hypervisor/usermode/futex_leases.h"
#include "dom0-daemon/hypervisor/usermode/guest_thread.h"
#include "dom0-daemon/hypervisor/usermode/guest_view.h"
#include "dom0-daemon/hypervisor/usermode/home.h"
#include "dom0-daemon/hypervisor/usermode/layout_table.h"
#include "dsm-rdma/engine.h"
#include "dsm-rdma/transport/tcp/tcp_transport.h"
#include "dsm-rdma/transport/transport.h"

namespace xenspan::hypervisor::usermode {

struct SliceConfig {
  // By what wire: makes the transport when every slice listens. Empty: TCP.
  using Connect = std::function<Result<std::unique_ptr<dsm::Transport>>(
      const dsm::tcp::MeshConfig& mesh, dsm::tcp::Acceptor& acceptor)>;

  dsm::HostId self = 0;
  dsm::HostId home = 0;         // at the time of join()
  dsm::HostId engine_home = 0;  // dsm::EngineConfig::home
  bool heir = false;            // will become the home: it may open files
  // By host number. The name of a number that is nobody's is empty. A running slice has room for
  // kMaxHosts.
  std::vector<std::string> hosts;
  std::vector<std::string> addresses;  // numeric
  std::vector<std::uint16_t> ports;
  std::vector<std::uint32_t> incarnations;  // dsm::tcp::Peer; empty: zeros
  bool hosts_may_join = true;               // later; RDMA's connections are made once
  unsigned first_hosts = 0;  // how many the domain began with; 0: as many as there are now
  std::vector<VcpuPlace> vcpus;
  std::uint64_t memory = 0;
  dsm::tcp::Secret secret{};
  bool encrypt = false;
  unsigned prefetch = dsm::kMostPrefetch;
  dsm::FeatureSet without;
  dsm::Epoch epoch = 1;  // of the connections and messages between slices
  // Another slice, never the home's, is gone: somebody decides what becomes of the domain, and
  // until then whoever needs it waits. Empty: the domain stops. From the engine's service thread.
  std::function<void(dsm::HostId host, const std::string& why)> on_peer_lost;
  std::string directory;
  int descriptor_limit = 1024;
  std::string cwd;  // at the home
  Connect connect;
};

class Slice {
 public:
  using Ended = std::function<void(const Home::Services::End&)>;
  using Failed = std::function<void(const std::string& cause)>;

  // Before privileges are dropped.
  static Result<std::unique_ptr<Slice>> create(Ended ended, Failed failed);
  // Joins the other slices; returns when all are connected. The acceptor's listening socket is this
  // slice's.
  Status join(const SliceConfig& config, UniqueFd listening);
  // The home: loads and starts the program.
  Status run(const std::string& program, std::vector<std::string> arguments,
             std::vector<std::string> environment);
  void outside_signal(int signo);
  // Another host joins: this slice connects to it, then takes it for a member. One that has drained
  // (or has connected only) leaves. They block; one call at a time (slice_members.cc).
  Status add_peer(dsm::HostId host, const dsm::tcp::Peer& peer);
  Status admit_peer(dsm::HostId host);
  // A slice that joins serves from the first of these on.
  void learn_slots(const dsm::SlotTable& table);
  Status remove_peer(dsm::HostId host);
  void stop(const std::string& cause) { engine_->stop(cause); }
  // The home's role moves (slice_role.cc; the steps are control.md's), one of these at a time. An
  // error changes nothing.
  // No call begins at the home; how many are under way after the limit, and some of them in words.
  struct Held {
    unsigned calls = 0;
    std::vector<std::string> names;
  };
  Held hold(std::chrono::milliseconds limit);
  void release();
  // At the home: `to` has all that it kept. The signals are those that came from outside meanwhile.
  Result<std::vector<int>> give_home(dsm::HostId to);
  Result<std::vector<int>> set_home(dsm::HostId host);
  void forget_engine_home();
  // Others have died, and the domain goes on (dsm-rdma/survival.h): the steps that concern more
  // than the engine.
  Status freeze(dsm::HostMask lost);
  Status forget(const dsm::SlotTable& table, dsm::Epoch epoch);

  // For guest threads.
  dsm::Engine& engine() { return *engine_; }
  GuestView& view() { return *view_; }
  LayoutTable& layout() { return layout_; }
  const SliceConfig& config() const { return config_; }  // its `vcpus`: as they were at the start
  VcpuPlaces& places() { return places_; }
  dsm::HostId home_host() const { return home_host_.load(); }
  bool is_home() const { return config_.self == home_host(); }
  // The engine's home is the one the domain began at, until it is forgotten.
  bool is_engine_home() const { return config_.self == engine_home_.load(); }
  // nullptr: it is elsewhere.
  Home* home() { return is_home() ? serving_home_.load() : nullptr; }
  // Counts the homes; it changes while the gate is closed and no call is under way.
  unsigned role() const { return role_.load(); }
  CallGate& gate() { return gate_; }
  IdleFutexes& idle_futexes() { return idle_futexes_; }
  // A line for this thread: taken from those ready, or made. nullptr: the home is gone.
  std::unique_ptr<Line> take_line(int tid);
  // `role` as it was when the line was taken.
  void give_back(std::unique_ptr<Line> line, unsigned role);
  void add(std::unique_ptr<GuestThread> thread);
  void remove(int tid);
  // Gives up one that may go to another host.
  void release(int tid);
  // Learns a layout answer unless a newer prohibition has arrived meanwhile.
  bool learn(std::uint64_t version, std::uint64_t address, const Range& range, int prot);
  // The domain's process id: the home's slice, the one an outsider's kill would name.
  int home_pid() const { return home_pid_; }
  // ns to add to this host's clocks to have the domain's, which began as its first home's.
  std::int64_t monotonic_offset() const { return monotonic_offset_; }
  std::int64_t realtime_offset() const { return realtime_offset_; }

  dsm::EngineStats stats(std::size_t hottest) const { return engine_->stats(hottest); }
  dsm::Sharing sharing(std::size_t pages) const { return engine_->sharing(pages); }
  std::uint64_t frames_bytes() const { return view_->frames_bytes(); }
  std::size_t threads_here();
  std::atomic<std::uint64_t> local_calls{0}, home_calls{0};

 private:
  Slice(Ended ended, Failed failed) : ended_(std::move(ended)), failed_(std::move(failed)) {}
  Status start_engine(UniqueFd listening);
  void peer_lost(dsm::HostId peer, const char* why);
  void start_serving();
  Home::Services home_services();
  void accept_lines();
  void accept_control();
  Status start_home();
  Status start_remote();
  static constexpr int kConnectLimitMs = 15000;
  // To another slice, whose epoch the caller says.
  dsm::tcp::ConnectOptions options_to(dsm::HostId host, std::uint8_t purpose) const;
  Result<std::unique_ptr<dsm::tcp::SecureStream>> connect_line(dsm::tcp::ConnectOptions& options);
  std::unique_ptr<Line> make_line(dsm::HostId home);
  // At the start, and when another slice is the home: lines to it, and its clocks.
  struct Clocks {
    std::int64_t monotonic_offset = 0, realtime_offset = 0;
    int home_pid = 0;
  };
  Result<std::vector<std::unique_ptr<Line>>> make_ready_lines(dsm::HostId home);
  Result<Clocks> measure_clocks(dsm::HostId home, Line& line);
  void follow_home(dsm::HostId home, const Clocks& clocks,
                   std::vector<std::unique_ptr<Line>> lines);
  // slice_role.cc
  Status may_give_home(dsm::HostId to);
  Status send_home(dsm::HostId to, const Packet& state);
  void take_home_part(const Packet& request, Packet& answer);
  Status take_home(const Packet& packet);
  Status become_home();
  Status follow(dsm::HostId host);
  void stop_being_home();
  int start_thread_on(dsm::HostId host, const StartThread& start);
  int take_over_on(dsm::HostId host, const Packet& state);
  void place_on_all(unsigned vcpu, VcpuPlace place);
  void place_on(dsm::HostId host, unsigned vcpu, VcpuPlace place);
  void call_away_on(dsm::HostId host, int tid);
  void forbid_on(dsm::HostId host, std::uint64_t version, const Range& range);
  void take_back_lease(dsm::HostId host, std::uint64_t address, std::uint64_t version);
  void kick_on(dsm::HostId host, int tid);
  Status connect_control(dsm::HostId host);
  void close_control(dsm::HostId host);
  bool control_call(dsm::HostId host, Op op, const Packet& request, Packet& answer);
  void serve_line(std::unique_ptr<dsm::tcp::SecureStream> stream);
  void serve_control(dsm::tcp::SecureStream& stream);
  // 0, -EINVAL, or -ESTALE: it is on another host.
  int vcpu_is_here(std::uint32_t vcpu) const;

  Ended ended_;
  Failed failed_;
  SliceConfig config_;
  VcpuPlaces places_;
  LayoutTable layout_;
  IdleFutexes idle_futexes_;
  std::unique_ptr<GuestView> view_;
  std::unique_ptr<dsm::tcp::Acceptor> acceptor_;
  std::unique_ptr<dsm::Transport> transport_;
  std::unique_ptr<dsm::Engine> engine_;
  std::unique_ptr<Home> home_;  // also one that has retired
  // Serves lines: of the home, and of a slice that has been given all and will be it next.
  std::atomic<Home*> serving_home_{nullptr};
  std::atomic<dsm::HostId> home_host_{0}, engine_home_{0};
  std::atomic<unsigned> role_{0};
  CallGate gate_;
  Packet coming_home_;  // parts of a state. The control line's thread
  std::mutex signals_lock_;
  std::vector<int> late_signals_;  // came when the home had retired. GUARDED_BY(signals_lock_)
  bool serving_ = false;           // before other threads exist, or the one that changes members

  std::mutex lock_;
  std::map<int, std::unique_ptr<GuestThread>> threads_;  // GUARDED_BY(lock_)
  std::vector<std::unique_ptr<Line>> lines_;             // ready, unused. GUARDED_BY(lock_)

  struct Control {
    std::mutex lock;  // one request at a time
    std::unique_ptr<dsm::tcp::SecureStream> stream;
    // Kicks are sent by a thread of their own: whoever signals must not wait for a host.
    std::mutex kick_lock;
    std::map<int, Op> kicks;  // thread -> kKick or kCallAway. GUARDED_BY(kick_lock)
    Parker kicker;
  };
  void send_kicks(dsm::HostId host, Control& control);
  // At the home only; by host. They come and go: nullptr when it is not there.
  std::array<std::atomic<std::shared_ptr<Control>>, dsm::kMaxHosts> controls_;

  std::atomic_flag learning_ = ATOMIC_FLAG_INIT;
  std::uint64_t forbidden_version_ = 0;  // newest prohibition seen. GUARDED_BY(learning_)
  std::atomic<std::int64_t> monotonic_offset_{0}, realtime_offset_{0};
  std::atomic<int> home_pid_{0};
};

}  // namespace xenspan::hypervisor::usermode
