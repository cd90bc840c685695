// The story in xenstore: hosts and domains as this daemon knows them, for admins and tools
// (xenspan-xenstore(5)).
//
// Owns this host's xenstored where there is no Xen, and the connection to it. xenspand holds the
// truth in its own memory; what is here is written after it, and is written again in whole when
// xenstored had to be started anew. Nodes named `request` are read: each is answered and removed.
// Threading: the loop's thread; a write waits for xenstored's answer.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/daemon/daemon_config.h"
#include "dom0-daemon/daemon/domain_record.h"
#include "dom0-daemon/daemon/event_loop.h"
#include "dom0-daemon/daemon/host_record.h"
#include "xenstore-schema/records.h"
#include "xenstore-schema/watch_loop.h"
#include "xenstore-schema/xenstore_store.h"
#include "xenstore-schema/xenstored_process.h"

namespace xenspan::daemon {

class XenstoreStory {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    // An admin wrote "destroy"; the error, if any, is put beside the request.
    virtual Status destroy_requested(const std::string& uuid) = 0;
    // An admin wrote a request for a member of a domain. Its answer comes by answer_member(), or
    // at once as an error.
    virtual Status member_requested(const std::string& uuid, const std::string& host,
                                    const std::string& word) = 0;
    virtual void member_withdrawn(const std::string& uuid, const std::string& host) = 0;
    // The store is new and empty: tell everything again.
    virtual void store_restarted() = 0;
  };

  static Result<std::unique_ptr<XenstoreStory>> open(EventLoop& loop, const Config& config,
                                                     Handler& handler);
  XenstoreStory(const XenstoreStory&) = delete;
  XenstoreStory& operator=(const XenstoreStory&) = delete;
  ~XenstoreStory();

  void put_host(const HostRecord& record, xenstore::HostState state, const std::string& error = {});
  void beat(const HostRecord& record);
  void host_down(const std::string& name, const std::string& error);
  // The whole domain: record, members, vCPUs, counters.
  void put_domain(const DomainRecord& record);
  void put_counters(const DomainRecord& record);
  void remove_domain(const std::string& uuid);
  // Writes what an admin could write.
  Status request_member(const std::string& uuid, const std::string& host,
                        xenstore::MemberRequest request);
  // Takes the request away, together with what answers it: the member's state, or the error. A
  // request that somebody has written in the place of this one stays.
  void answer_member(const std::string& uuid, const std::string& host,
                     xenstore::MemberRequest request, const Status& answer,
                     std::optional<xenstore::MemberState> state);
  // This host leaves: its own nodes go.
  void leave();
  // As long as xenstored lives.
  xenstore::Store* store() { return store_.get(); }

 private:
  XenstoreStory(EventLoop& loop, const Config& config, Handler& handler)
      : loop_(loop), config_(config), handler_(handler) {}
  Status connect();
  Status remove_leftovers();
  void restart();
  void changed(const std::string& path);
  void domain_request(const std::string& uuid);
  void member_request(const std::string& uuid, const std::string& host, const std::string& word);
  Status remove_forgotten(xenstore::Nodes& nodes, const DomainRecord& domain);
  void not_supported(const std::string& path, const std::string& request);
  void check(const Status& status);
  // Another xenspand writes to this store, too, and speaks for its own domains itself: two under
  // one Xen.
  bool is_told_by(const std::string& home);
  bool is_of_another(const std::string& uuid);
  // Of a member: what its home says, or why this host, which is not its home, has refused a request
  // that was written here; until the member's state changes. The home knows nothing of that.
  std::string member_error(const DomainRecord& domain, const DomainMember& member);
  Status put_vcpus(xenstore::Nodes& nodes, const DomainRecord& domain);

  EventLoop& loop_;
  const Config& config_;
  Handler& handler_;
  bool broken_ = false;
  std::map<std::string, std::string> rdma_told_;                    // host -> device
  std::map<std::string, std::vector<std::uint32_t>> threads_told_;  // uuid -> of each vCPU
  // uuid -> of each member
  std::map<std::string, std::map<std::string, xenstore::Counters>> counters_told_;
  struct Refused {
    xenstore::MemberState state;  // as told when that was
    std::string why;
  };
  std::map<std::string, Refused> refused_;  // by the member's path; only members that were told
  std::unique_ptr<xenstore::XenstoredProcess> process_;
  std::unique_ptr<xenstore::XenstoreStore> store_;
  std::unique_ptr<xenstore::WatchLoop> watches_;
  std::unique_ptr<FdWatch> exit_;
};

}  // namespace xenspan::daemon
