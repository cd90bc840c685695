// The home of a user-mode domain: what all its threads share. Layout, futexes, thread table,
// signals, timers, files, exit.
//
// Lives in the home's slice process. Each guest thread of the domain, wherever it runs, calls
// serve() through its line: a thread on the home directly, a remote one through a proxy thread here
// that may block in its place. Threading: serve() from any number of threads, one at a time for one
// guest thread. Locks: layout_lock_ covers the layout and is held over whole mapping calls; lock_
// covers threads, futexes and signals and is never held over anything that blocks. No lock is held
// while guest memory is touched. Ownership: Services are borrowed and outlive the home.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "dom0-daemon/hypervisor/usermode/address_space.h"
#include "dom0-daemon/hypervisor/usermode/futex_leases.h"
#include "dom0-daemon/hypervisor/usermode/futex_table.h"
#include "dom0-daemon/hypervisor/usermode/guest_view.h"
#include "dom0-daemon/hypervisor/usermode/home_ops.h"
#include "dom0-daemon/hypervisor/usermode/io_calls.h"
#include "dom0-daemon/hypervisor/usermode/layout_table.h"
#include "dom0-daemon/hypervisor/usermode/loader.h"
#include "dom0-daemon/hypervisor/usermode/packet.h"
#include "dom0-daemon/hypervisor/usermode/parker.h"
#include "dom0-daemon/hypervisor/usermode/proc_files.h"
#include "dom0-daemon/hypervisor/usermode/symbols.h"
#include "dom0-daemon/hypervisor/usermode/vcpu_places.h"
#include "dsm-rdma/engine.h"

namespace xenspan::hypervisor::usermode {

// Signal sets are 64 bits, signal n at bit n-1, as the kernel's.
constexpr std::uint64_t signal_bit(int signo) { return std::uint64_t{1} << (signo - 1); }

// Names this boot of this machine: hosts that share it (test beds) share their clocks.
using BootId = std::array<char, 36>;
BootId boot_id();

// One guest thread as the home knows it.
struct HomeThread {
  int tid = 0;
  std::atomic<unsigned> vcpu{0};     // where it shall be; written under Home::lock_
  std::atomic<dsm::HostId> host{0};  // where it is; written under Home::lock_
  int core = 0;                      // GUARDED_BY(Home::lock_)
  unsigned told_vcpu = 0;            // what its slice shows it. GUARDED_BY(Home::lock_)
  int move_error = 0;                // of its last try to go, an errno. GUARDED_BY(Home::lock_)
  Parker parker;
  std::atomic<std::uint64_t> mask{0};  // blocked signals at its last call
  std::atomic<bool> told{true};        // it has made a call at this home
  std::atomic<int> in_call{0};         // 1 while the home works or sleeps for it
  std::atomic<int> proxy{
      0};  // kernel thread id that serves it here (itself, for a thread on the home)
  std::map<int, siginfo_t> pending;          // GUARDED_BY(Home::lock_)
  std::uint64_t waiting_for = 0;             // rt_sigtimedwait's set. GUARDED_BY(Home::lock_)
  std::uint32_t futex_count = 0;             // makes tickets. Its own thread
  std::array<std::uint64_t, 16> affinity{};  // zeros: all. GUARDED_BY(Home::lock_)
  void tell(std::uint64_t blocked) {
    mask.store(blocked, std::memory_order_relaxed);
    told.store(true, std::memory_order_relaxed);
  }
};

struct HomeState;

class Home {
 public:
  // What the home needs of its slice and of the other slices.
  struct Services {
    dsm::HostId self = 0;  // its own number
    GuestView* view = nullptr;
    LayoutTable* layout = nullptr;
    dsm::Engine* engine = nullptr;
    VcpuPlaces* places = nullptr;
    std::vector<std::string> hosts;  // names; "": this number is nobody's
    std::uint64_t memory = 0;        // bytes
    int descriptor_limit = 1024;
    std::string directory;  // for generated files
    // ns that the domain's clocks are ahead of this host's.
    std::int64_t monotonic_offset = 0, realtime_offset = 0;
    // Starts a thread on a host (the home included): 0 or -errno.
    std::function<int(dsm::HostId, const StartThread&)> start_thread;
    std::function<void(dsm::HostId, std::uint64_t version, const Range&)>
        forbid;  // remote hosts only
    // Waits for the host (futex_leases.h).
    std::function<void(dsm::HostId, std::uint64_t address, std::uint64_t version)> take_back_lease;
    std::function<void(dsm::HostId, int tid)> kick;  // does not wait for the host
    // For threads that move (home_move.cc), on any host, the home included.
    std::function<int(dsm::HostId, const Packet& state)> take_over;         // 0 or -errno
    std::function<void(unsigned vcpu, VcpuPlace)> place;                    // to all other slices
    std::function<void(dsm::HostId, unsigned vcpu, VcpuPlace)> tell_place;  // to one of them
    std::function<void(dsm::HostId, int tid)> call_away;  // does not wait for the host
    // The domain is over. Called once.
    struct End {
      int status = 0;  // 0-255
      int signo = 0;
      std::string message;
    };
    std::function<void(const End&)> end;
  };
  explicit Home(Services services);
  ~Home();

  // Loads the program; afterwards main thread's start is described by the answer. Errors: as
  // loader.h.
  Result<StartThread> load(const std::string& program, std::vector<std::string> arguments,
                           std::vector<std::string> environment);

  std::shared_ptr<HomeThread> thread(int tid);
  // Serves one request of a thread. Never returns for kExitGroup, nor for anything after the end.
  void serve(HomeThread& thread, Op op, const Packet& request, Packet& answer);
  // A signal from outside (terminal, kill): as kill(2) to the program.
  void outside_signal(int signo);
  // Places a vCPU anew and waits until its threads are there. Threads that a call holds for long
  // follow when it returns: `waiting`. Error: all is as before.
  struct Moved {
    unsigned threads = 0, waiting = 0;
    std::int64_t ns = 0;
  };
  Result<Moved> migrate(unsigned vcpu, VcpuPlace to);
  // For hosts that join and leave (home_members.cc). A new host learns where each vCPU is; from
  // then on it is told as all others are.
  void tell_places(dsm::HostId host, const std::string& name);
  // Waits until no thread is on the host, at most so long: how many are. EBUSY: a vCPU is.
  Result<unsigned> vacate(dsm::HostId host, std::chrono::milliseconds limit);
  // The thread of the domain's kicks and timers; runs until the home has retired.
  void run_pump();

  // Of guest-physical bytes (gfn * 4096 + offset).
  std::vector<std::string> names(const std::vector<std::uint64_t>& bytes);
  struct ThreadInfo {
    int tid;
    unsigned vcpu;
    dsm::HostId host;
    const char* state;  // "running" or "home call"
  };
  std::vector<ThreadInfo> threads();
  // The role moves (home_role.cc): all that this home keeps, while no thread is in a call here; and
  // a new home begins with it, or refuses it and has nothing. The program's own descriptors, its
  // working directory and its umask are the caller's to set.
  HomeState state();
  Status take(const HomeState& state);
  // Between these the slices let no call begin; what is under way here is interrupted, again and
  // again, so that it is made anew later. No timer runs out meanwhile.
  void hold();
  void release();
  // How many threads are on the host, and how many in a call here.
  unsigned threads_on(dsm::HostId host);
  unsigned calls_under_way();
  // Before state(): signals from outside that come from now on are kept. Then either nothing has
  // come of it, and they are posted; or another home has taken the state, and this one does nothing
  // any more: the kept ones are that home's.
  void begin_giving();
  void keep();
  std::vector<int> retire();
  std::uint64_t calls_served() const { return calls_.load(std::memory_order_relaxed); }

 private:
  // home_memory.cc
  std::int64_t memory_call(std::int64_t number, const std::array<std::uint64_t, 6>& args);
  std::int64_t map_call(const std::array<std::uint64_t, 6>& args);
  std::int64_t advise(std::uint64_t address, std::uint64_t bytes, int advice);
  std::int64_t sync_mapping(std::uint64_t address, std::uint64_t bytes);
  std::int64_t carry_out(const Change& change);
  void forbid(const Range& range);
  void write_back(const Mapping& mapping, Range range);
  std::int64_t fill(const Mapping& mapping);
  void collect_backings();
  void layout_query(HomeThread& thread, std::uint64_t address, Packet& answer);
  // home_futex.cc
  void futex_enqueue(HomeThread& thread, Reader& in, Writer& out);
  void futex_sleep(HomeThread& thread, Reader& in, Writer& out);
  void futex_cancel(Reader& in, Writer& out);
  void futex_wake(const HomeThread& caller, Reader& in, Writer& out);
  void take_back_leases(std::uint64_t address, const FutexLeases::TakeBack& what);
  void futex_requeue(Reader& in, Writer& out);
  void wake_tickets(const std::vector<FutexTicket>& tickets);
  // home_threads.cc
  std::int64_t clone(HomeThread& parent, const CloneRequest& request);
  using CpuMask = std::array<std::uint64_t, 16>;
  unsigned choose_vcpu(const CpuMask& allowed);
  void thread_exit(HomeThread& thread);
  void affinity(HomeThread& caller, Reader& in, Writer& out);
  // home_move.cc
  bool settled(const HomeThread& thread) const;
  bool move(HomeThread& thread, const Packet& request, Packet& answer);
  void call_away(HomeThread& thread);
  void call_away_unsettled();
  void place(unsigned vcpu, VcpuPlace to);
  Result<Moved> await_settled(unsigned vcpu);
  // home_exec.cc
  Result<StartThread> load_image(Program wanted);
  Result<Program> check_exec(Reader& in);
  bool alone(const HomeThread& caller);
  void exec(HomeThread& caller, Reader& in, Writer& out);
  void make_files();
  // home_end.cc
  [[noreturn]] static void park_for_ever();
  // By the program itself.
  [[noreturn]] void finish(const Services::End& end);
  // Returns; whatever holds the program up, the end is reported about a second later at the latest.
  void end_by_signal(const Services::End& end);
  void save_shared();
  void report(const Services::End& end);
  // home_signals.cc
  void sigaction(Reader& in, Writer& out);
  void send_signal(HomeThread& sender, Reader& in, Writer& out);
  std::int64_t post(HomeThread* target, int signo, const siginfo_t& info);
  void take_signal(HomeThread& thread, Reader& in, Writer& out);
  void signal_wait(HomeThread& thread, Reader& in, Writer& out);
  void pending(HomeThread& thread, Writer& out);
  void timer(Reader& in, Writer& out);
  void fault(HomeThread& thread, Reader& in, Writer& out);
  void kick_pending();
  void interrupt(HomeThread& thread);
  bool held() const { return hold_.load() % 2 != 0; }
  void interrupt_calls(unsigned hold);
  void kick_thread(HomeThread& thread);
  int fatal_pending();
  std::map<int, siginfo_t>::iterator deliverable(std::map<int, siginfo_t>& set, std::uint64_t mask);
  std::string crash_text(const HomeThread& thread, const FaultReport& report);

  Services services_;
  Program program_;
  std::string auxv_;  // of the program
  std::unique_ptr<ProcFiles> files_;
  std::atomic<std::uint64_t> calls_{0};
  std::atomic<bool> ending_{false};  // nothing is done for any thread any more
  std::atomic<bool> forced_{false}, saving_{false}, reported_{false};
  std::atomic<std::int32_t> next_tid_{0};

  std::mutex layout_lock_;
  AddressSpace space_;                // GUARDED_BY(layout_lock_)
  Symbols symbols_;                   // GUARDED_BY(layout_lock_)
  std::uint64_t layout_version_ = 1;  // GUARDED_BY(layout_lock_)
  std::unordered_map<std::uint64_t, dsm::HostMask>
      known_by_;                      // block -> hosts told. GUARDED_BY(layout_lock_)
  std::map<int, UniqueFd> backings_;  // files behind mappings. GUARDED_BY(layout_lock_)
  int next_backing_ = 0;

  std::mutex lock_;
  std::map<int, std::shared_ptr<HomeThread>> threads_;  // GUARDED_BY(lock_)
  int main_tid_ = 0;
  FutexTable futexes_;                        // GUARDED_BY(lock_)
  FutexLeases futex_leases_;                  // GUARDED_BY(lock_)
  std::array<GuestAction, 65> actions_{};     // GUARDED_BY(lock_)
  std::map<int, siginfo_t> process_pending_;  // GUARDED_BY(lock_)
  std::int64_t timer_due_ = 0,
               timer_interval_ = 0;   // CLOCK_MONOTONIC ns, 0 = off. GUARDED_BY(lock_)
  std::atomic<unsigned> hold_{0};     // odd: held
  std::atomic<bool> retired_{false};  // the role is another's
  bool giving_ = false;               // GUARDED_BY(lock_)
  std::vector<int> kept_signals_;     // while giving. GUARDED_BY(lock_)
  Parker pump_;
  std::mutex placing_;                // orders changes of placement
  std::condition_variable settling_;  // a thread has moved or ended; with lock_
};

}  // namespace xenspan::hypervisor::usermode
