// xenspand as a whole: one loop, and who tells whom.
//
//   Cluster (peers) --> Daemon --> SliceRouter, PeerSlices, DomainTable, Commands
//   ControlSocket (commands) --> Commands --> DomainTable --> Domain --> SliceRouter -->
//   LocalSlices or Cluster DomainTable, Daemon --> XenstoreStory
//
// Owns all of them; they hold references to each other and live equally long. Threading: the loop's
// thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dom0-daemon/daemon/balancer.h"
#include "dom0-daemon/daemon/cluster.h"
#include "dom0-daemon/daemon/commands.h"
#include "dom0-daemon/daemon/control_socket.h"
#include "dom0-daemon/daemon/core_load.h"
#include "dom0-daemon/daemon/daemon_config.h"
#include "dom0-daemon/daemon/domain_table.h"
#include "dom0-daemon/daemon/frame_blocks.h"
#include "dom0-daemon/daemon/leases.h"
#include "dom0-daemon/daemon/local_slices.h"
#include "dom0-daemon/daemon/run_directory.h"
#include "dom0-daemon/daemon/slice_router.h"
#include "dom0-daemon/daemon/xen_domains.h"
#include "dom0-daemon/daemon/xen_peer_slices.h"
#include "dom0-daemon/daemon/xenstore_story.h"

namespace xenspan::daemon {

class Daemon : public Cluster::Handler, public XenstoreStory::Handler {
 public:
  // Brings everything up. The error is one line for the admin.
  static Result<std::unique_ptr<Daemon>> start(const Config& config);
  ~Daemon() override;
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Serves until SIGTERM or SIGINT; then ends all domains here, says goodbye to the peers and
  // returns.
  void run();

 private:
  Daemon(const Config& config, std::unique_ptr<TlsContext> tls, std::string slice_program,
         std::unique_ptr<RunDirectory> directory);
  Status open();
  HostRecord own_record() const;
  std::optional<HostRecord> record_of(const std::string& host) const;
  void look_for_rdma();
  Status open_xen();
  void tick();
  void begin_end();
  void finish_end();

  void host_joined(const HostRecord& record) override;
  void host_changed(const HostRecord& record) override;
  void host_lost(const std::string& name, const std::string& cause) override;
  void host_message(const std::string& name, Json message) override;
  void fenced(const std::string& uuid, const std::string& cause);
  Status destroy_requested(const std::string& uuid) override;
  Status member_requested(const std::string& uuid, const std::string& host,
                          const std::string& word) override;
  void member_withdrawn(const std::string& uuid, const std::string& host) override;
  void store_restarted() override;

  const Config config_;
  const CpuFeatures cpu_ = local_cpu_features();
  RdmaPort rdma_;
  std::unique_ptr<RunDirectory> directory_;
  FrameBlocks frame_blocks_;
  EventLoop loop_;
  Cluster cluster_;
  LocalSlices slices_;
  Leases leases_;
  SliceRouter router_;
  PeerSlices peer_slices_;
  DomainTable domains_;
  Commands commands_;
  // The three of a Dom0; nullptr elsewhere.
  std::unique_ptr<XenHost> xen_;
  std::unique_ptr<XenPeerSlices> xen_slices_;
  std::unique_ptr<XenDomains> xen_domains_;
  Balancer balancer_;
  CoreLoad load_;
  std::unique_ptr<XenstoreStory> story_;
  std::unique_ptr<ControlSocket> control_;
  std::unique_ptr<Timer> tick_;
  std::vector<std::unique_ptr<SignalWatch>> signals_;
  unsigned ticks_ = 0;
  bool ending_ = false;
  int ending_ticks_ = 0;
};

}  // namespace xenspan::daemon
