// One slice of a user-mode domain in this process: guest view, layout cache, engine, threads, and
// at the home the Home.
//
// The worker (dom0-daemon/slice/) creates it, joins it to the other slices, and at the home runs
// the program. Threading: set-up and run() from the worker's main thread; start_thread, forbid and
// kick from control; the rest from guest threads. Ownership: owns everything of the domain in this
// process. It is never destroyed: the process ends instead.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/hypervisor/usermode/futex_leases.h"
#include "dom0-daemon/hypervisor/usermode/guest_thread.h"
#include "dom0-daemon/hypervisor/usermode/guest_view.h"
#include "dom0-daemon/hypervisor/usermode/home.h"
#include "dom0-daemon/hypervisor/usermode/layout_table.h"
#include "dsm-rdma/engine.h"
#include "dsm-rdma/transport/tcp/secure_stream.h"
#include "dsm-rdma/transport/transport.h"

namespace xenspan::hypervisor::usermode {

struct SliceConfig {
  dsm::HostId self = 0;
  std::vector<std::string> hosts;      // names; index 0 is the home
  std::vector<std::string> addresses;  // numeric
  std::vector<std::uint16_t> ports;
  std::vector<VcpuPlace> vcpus;
  std::uint64_t memory = 0;
  dsm::tcp::Secret secret{};
  bool encrypt = false;
  unsigned prefetch = dsm::kMostPrefetch;
  std::string directory;
  int descriptor_limit = 1024;
  std::string cwd;  // at the home
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
  void stop(const std::string& cause) { engine_->stop(cause); }

  // For guest threads.
  dsm::Engine& engine() { return *engine_; }
  GuestView& view() { return *view_; }
  LayoutTable& layout() { return layout_; }
  const SliceConfig& config() const { return config_; }
  bool is_home() const { return config_.self == 0; }
  Home* home() { return home_.get(); }
  IdleFutexes& idle_futexes() { return idle_futexes_; }
  // A line for this thread: taken from those ready, or made. nullptr: the home is gone.
  std::unique_ptr<Line> take_line(int tid);
  void give_back(std::unique_ptr<Line> line);
  void add(std::unique_ptr<GuestThread> thread);
  void remove(int tid);
  // Learns a layout answer unless a newer prohibition has arrived meanwhile.
  bool learn(std::uint64_t version, std::uint64_t address, const Range& range, int prot);
  // The domain's process id: the home's slice, the one an outsider's kill would name.
  int home_pid() const { return home_pid_; }
  // ns to add to this host's clocks to have the home's.
  std::int64_t monotonic_offset() const { return monotonic_offset_; }
  std::int64_t realtime_offset() const { return realtime_offset_; }

  dsm::EngineStats stats(std::size_t hottest) const { return engine_->stats(hottest); }
  std::uint64_t frames_bytes() const { return view_->frames_bytes(); }
  std::size_t threads_here();
  std::atomic<std::uint64_t> local_calls{0}, home_calls{0};

 private:
  Slice(Ended ended, Failed failed) : ended_(std::move(ended)), failed_(std::move(failed)) {}
  Status start_engine(UniqueFd listening);
  Status start_home();
  Status start_remote();
  Status measure_clocks();
  int start_thread_on(dsm::HostId host, const StartThread& start);
  void forbid_on(dsm::HostId host, std::uint64_t version, const Range& range);
  void take_back_lease(dsm::HostId host, std::uint64_t address, std::uint64_t version);
  void kick_on(dsm::HostId host, int tid);
  void send_kicks(dsm::HostId host);
  bool control_call(dsm::HostId host, Op op, const Packet& request, Packet& answer);
  void serve_line(std::unique_ptr<dsm::tcp::SecureStream> stream);
  void serve_control(dsm::tcp::SecureStream& stream);

  Ended ended_;
  Failed failed_;
  SliceConfig config_;
  LayoutTable layout_;
  IdleFutexes idle_futexes_;
  std::unique_ptr<GuestView> view_;
  std::unique_ptr<dsm::tcp::Acceptor> acceptor_;
  std::unique_ptr<dsm::Transport> transport_;
  std::unique_ptr<dsm::Engine> engine_;
  std::unique_ptr<Home> home_;

  std::mutex lock_;
  std::map<int, std::unique_ptr<GuestThread>> threads_;  // GUARDED_BY(lock_)
  std::vector<std::unique_ptr<Line>> lines_;             // ready, unused. GUARDED_BY(lock_)

  struct Control {
    std::mutex lock;  // one request at a time
    std::unique_ptr<dsm::tcp::SecureStream> stream;
    // Kicks are sent by a thread of their own: whoever signals must not wait for a host.
    std::mutex kick_lock;
    std::set<int> kicks;  // threads to kick. GUARDED_BY(kick_lock)
    Parker kicker;
  };
  std::vector<std::unique_ptr<Control>> controls_;  // home only; by host

  std::atomic_flag learning_ = ATOMIC_FLAG_INIT;
  std::uint64_t forbidden_version_ = 0;  // newest prohibition seen. GUARDED_BY(learning_)
  std::int64_t monotonic_offset_ = 0, realtime_offset_ = 0;
  int home_pid_ = 0;
};

}  // namespace xenspan::hypervisor::usermode
