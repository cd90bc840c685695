// The slices that run on this host, of domains whose home is here or elsewhere: their processes,
// run directories and what of this host's cores and memory they hold.
//
// Threading: the loop's thread. Ownership: owns the processes; callbacks belong to the domain (or
// the peer service) that created the slice and are dropped with it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dom0-daemon/daemon/daemon_config.h"
#include "dom0-daemon/daemon/event_loop.h"
#include "dom0-daemon/daemon/slice_process.h"
#include "dom0-daemon/daemon/user.h"

namespace xenspan::daemon {

class LocalSlices {
 public:
  // Sees what the slices here say before their domains do.
  class Watcher {
   public:
    virtual ~Watcher() = default;
    virtual void slice_created(const std::string& uuid, const Json& create) = 0;
    virtual void slice_told(const std::string& uuid, const Json& message) = 0;
    // True: it is for nobody else.
    virtual bool slice_event(const std::string& uuid, const Json& event) = 0;
    virtual void slice_ended(const std::string& uuid) = 0;
  };

  LocalSlices(EventLoop& loop, const Config& config, std::string slice_program);
  void set_watcher(Watcher* watcher) { watcher_ = watcher; }

  // Starts a worker and sends it `create` (a message of dom0-daemon/slice/control.md without
  // `rundir`, which is made here). `uuid` is checked by the caller. One slice per domain and host.
  Status create(const std::string& uuid, const User& user, Json create, std::vector<UniqueFd> fds,
                std::uint64_t promised_memory, SliceProcess::OnEvent on_event,
                SliceProcess::OnEnd on_end);
  // Any other message; an unknown slice swallows it (it has ended, and that was reported).
  void send(const std::string& uuid, const Json& message);
  // vCPUs have come or gone; what is no core for vCPUs counts nowhere.
  void set_cores(const std::string& uuid, std::vector<int> cores);
  void stop(const std::string& uuid, const std::string& cause);

  bool empty() const { return slices_.empty(); }
  bool contains(const std::string& uuid) const { return slices_.contains(uuid); }
  // vCPUs placed on each of the configured cores, and memory promised.
  std::vector<int> core_use() const;
  std::uint64_t memory_used() const;
  pid_t pid_of(const std::string& uuid) const;
  // Of all slices, when one belongs to a domain that looks at the load; otherwise none.
  std::vector<pid_t> pids_for_load() const;

 private:
  struct Slice {
    std::unique_ptr<SliceProcess> process;
    std::vector<int> cores;
    std::uint64_t memory = 0;
    bool wants_load = false;
    std::string rundir;
  };

  Result<std::string> make_rundir(const std::string& uuid, const User& user) const;
  void ended(const std::string& uuid);

  EventLoop& loop_;
  const Config& config_;
  const std::string program_;
  Watcher* watcher_ = nullptr;
  std::map<std::string, Slice> slices_;
};

}  // namespace xenspan::daemon
