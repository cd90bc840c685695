// All domains this daemon knows of: its own (it is their home), and the records that other homes
// sent.
//
// Tells the other hosts and xenstore about every change, and once a second about counters. Records
// of ended domains stay for a while: the last kEndedKept of each home. Threading: the loop's
// thread. Ownership: owns the Domain objects.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dom0-daemon/daemon/cluster.h"
#include "dom0-daemon/daemon/domain.h"
#include "dom0-daemon/daemon/leases.h"
#include "dom0-daemon/daemon/xenstore_story.h"

namespace xenspan::daemon {

inline constexpr std::size_t kEndedKept = 8;

class DomainTable : public Domain::Handler {
 public:
  using OnChange = std::function<void(const DomainRecord& record)>;
  using OnOver = std::function<void(const Domain& domain)>;

  DomainTable(EventLoop& loop, const Config& config, Cluster& cluster, SliceLinks& links,
              Votes& votes);
  void set_story(XenstoreStory* story) { story_ = story; }
  // For domains under Xen; nullptr: there is no Xen here.
  class XenSlices {
   public:
    virtual ~XenSlices() = default;
    virtual Status may_hold_slice(const std::string& uuid, const HostRecord& host) = 0;
    virtual void prepare_slice(const std::string& uuid, const std::string& host,
                               std::function<void(Status done)> done) = 0;
  };
  void set_xen(XenSlices* xen) { xen_ = xen; }
  // Called after every change of any domain's state, own or not; when one of its own is over,
  // on_over comes first.
  void set_callbacks(OnChange on_change, OnOver on_over);

  void start(DomainSpec spec);
  // A domain whose home is here and that has no slices: one under Xen that does not span, or not
  // yet, or no more.
  void put_own(DomainRecord record);
  // One of its own that is not over; else nullptr.
  Domain* own(const std::string& uuid);
  std::vector<Domain*> running();  // its own
  bool all_over() const { return own_.empty(); }
  // By name, or by uuid or the beginning of one.
  Result<DomainRecord> find(const std::string& text) const;
  std::vector<DomainRecord> records() const;  // oldest first
  const DomainRecord* record(const std::string& uuid) const;
  // A name that no running domain has: the wish itself or with a number after it.
  std::string free_name(const std::string& wish) const;
  bool name_in_use(const std::string& name) const;

  // domain_table_members.cc. What was written into this host's xenstore, or removed; an error is
  // put beside it.
  Status member_requested(const std::string& uuid, const std::string& host,
                          const std::string& word);
  void member_withdrawn(const std::string& uuid, const std::string& host);
  Status write_member_request(const std::string& uuid, const std::string& host,
                              xenstore::MemberRequest request);
  // A peer's message. False: not such a message.
  bool handle(const std::string& host, const std::string& op, const Json& message);
  void host_joined(const std::string& host);
  void host_lost(const std::string& host, const std::string& cause);
  // What the hosts of a domain agree on, and that this one is out.
  void agreed(const Agreed& agreed);
  void fenced(const std::string& uuid, const std::string& cause);
  void tick();
  // Writes everything to a new store.
  void tell_all();
  void end_all(const std::string& cause);

 private:
  void domain_changed(Domain& domain) override;
  void domain_over(Domain& domain) override;
  Result<HostRecord> find_host(const std::string& name) override;
  void member_answered(Domain& domain, const Membership::Answer& answer) override;
  Status may_hold_slice(const Domain& domain, const HostRecord& host) override;
  void prepare_slice(const Domain& domain, const std::string& host,
                     std::function<void(Status done)> done) override;
  Votes& votes() override { return votes_; }
  // domain_table_role.cc
  void give_away(Domain& domain, const std::string& heir, Json state,
                 std::function<void(Status done)> done) override;
  void given_away(Domain& domain, const std::string& heir,
                  std::vector<std::pair<std::string, Domain::MoveDone>> waits) override;
  void take_role(const std::string& from, const Json& message);
  Status may_take_role(const std::string& from, const RoleState& state) const;
  void role_answered(const std::string& from, const Json& message);
  void settle_waits(const DomainRecord& record);
  void publish(const DomainRecord& record);
  void tell_outcome(const Domain& domain);
  void put_mirror(const std::string& host, const Json& message);
  void prune(const std::string& home);
  void forget(const std::string& uuid);
  void end_mirror(const std::string& uuid, const std::string& cause);

  EventLoop& loop_;
  const Config& config_;
  Cluster& cluster_;
  SliceLinks& links_;
  Votes& votes_;
  XenstoreStory* story_ = nullptr;
  XenSlices* xen_ = nullptr;
  OnChange on_change_;
  OnOver on_over_;
  std::map<std::string, std::unique_ptr<Domain>> own_;
  std::map<std::string, DomainRecord> others_;  // mirrors, and own ones that are over
  struct Giving {
    std::string heir;
    std::function<void(Status done)> done;
    std::unique_ptr<Timer> limit;
  };
  std::map<std::string, Giving> giving_;  // whose role is on its way to the heir
  struct Wait {
    std::string uuid, host;
    Domain::MoveDone done;
  };
  std::vector<Wait> waits_;  // for members of domains that were given away
};

}  // namespace xenspan::daemon
