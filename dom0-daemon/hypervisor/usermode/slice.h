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
  // By host number; index 0 is the home. The name of a number that is nobody's is empty. A running
  // slice has room for kMaxHosts.
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
  bool is_home() const { return config_.self == 0; }
  Home* home() { return home_.get(); }
  IdleFutexes& idle_futexes() { return idle_futexes_; }
  // A line for this thread: taken from those ready, or made. nullptr: the home is gone.
  std::unique_ptr<Line> take_line(int tid);
  void give_back(std::unique_ptr<Line> line);
  void add(std::unique_ptr<GuestThread> thread);
  void remove(int tid);
  // Gives up one that may go to another host.
  void release(int tid);
  // Learns a layout answer unless a newer prohibition has arrived meanwhile.
  bool learn(std::uint64_t version, std::uint64_t address, const Range& range, int prot);
  // The domain's process id: the home's slice, the one an outsider's kill would name.
  int home_pid() const { return home_pid_; }
  // ns to add to this host's clocks to have the home's.
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
  Status start_home();
  Status start_remote();
  Result<std::unique_ptr<dsm::tcp::SecureStream>> connect_line(dsm::tcp::ConnectOptions& options);
  Status measure_clocks();
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
  std::unique_ptr<Home> home_;
  bool serving_ = false;  // before other threads exist, or the one that changes members

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
  // Home only; by host. They come and go: nullptr when it is not there.
  std::array<std::atomic<std::shared_ptr<Control>>, dsm::kMaxHosts> controls_;

  std::atomic_flag learning_ = ATOMIC_FLAG_INIT;
  std::uint64_t forbidden_version_ = 0;  // newest prohibition seen. GUARDED_BY(learning_)
  std::int64_t monotonic_offset_ = 0, realtime_offset_ = 0;
  int home_pid_ = 0;
};

}  // namespace xenspan::hypervisor::usermode
