// The right of each slice here to run, and what a domain's hosts agree on about each other.
//
// For each domain with a slice here there is one quorum::Quorum, beside those of the domain's other
// hosts. This class gives it the time, carries its messages over the cluster's connections
// (`quorum` of cluster.md), hands its lease to the slice (`lease` of slice/control.md), and tells
// the daemon what was agreed on. At the home it also asks for hosts that join and leave (votes.h).
// A domain under Xen has none. Threading: the loop's thread.
// Ownership: owns the machines; an entry lives until the slice has ended and, where its home was
// lost, until that is agreed on.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dom0-daemon/daemon/cluster.h"
#include "dom0-daemon/daemon/local_slices.h"
#include "dom0-daemon/daemon/votes.h"
#include "dom0-daemon/quorum/quorum.h"

namespace xenspan::daemon {

// An epoch that has begun.
struct Agreed {
  std::string uuid;
  std::vector<std::string> gone;  // members of the one before that are not in it: lost, or left
  std::vector<std::string> by;    // who is in it
  std::uint64_t epoch = 0;
  bool home_lost = false;
};

class Leases : public LocalSlices::Watcher, public Votes {
 public:
  using OnAgreed = std::function<void(const Agreed& agreed)>;
  // This host is out; `cause` is a sentence.
  using OnFenced = std::function<void(const std::string& uuid, const std::string& cause)>;

  Leases(EventLoop& loop, const Config& config, Cluster& cluster, LocalSlices& slices);
  void set_callbacks(OnAgreed on_agreed, OnFenced on_fenced);

  // From LocalSlices.
  void slice_created(const std::string& uuid, const Json& create) override;
  void slice_told(const std::string& uuid, const Json& message) override;
  bool slice_event(const std::string& uuid, const Json& event) override;
  void slice_ended(const std::string& uuid) override;

  // From domains whose home is here.
  bool counts(const std::string& uuid, int index) const override;
  Json standing(const std::string& uuid) const override;
  void join(const std::string& uuid, int index) override;
  void leave(const std::string& uuid, int index, bool ended) override;
  void give_home(const std::string& uuid, int index) override;
  int home_of(const std::string& uuid) const override;

  // The connection to the home has ended: its domains end here, and what is agreed on about that is
  // waited for.
  void home_lost(const std::string& home);
  // A peer's message. False: not such a message.
  bool handle(const std::string& host, const std::string& op, const Json& message);

 private:
  struct Entry {
    std::vector<std::string> hosts;
    quorum::Member self = 0;
    std::unique_ptr<quorum::Quorum> quorum;
    std::unique_ptr<Timer> tick;
    bool ready = false;      // the slice obeys `lease`
    bool stands = false;     // the slice has stopped itself
    bool ended = false;      // the slice has
    bool home_gone = false;  // an answer is wanted although the slice has ended
    quorum::Time told = 0;   // the end of the lease that the slice knows; 0: it needs none
  };

  void tick(const std::string& uuid);
  void tick_soon(const std::string& uuid);
  void event(const std::string& uuid, Entry& entry, const quorum::Event& event);
  void fence(const std::string& uuid, Entry& entry, const quorum::Event& event);
  void carry_out(const std::string& uuid, Entry& entry, const quorum::Output& out);
  void tell_slice(const std::string& uuid, Entry& entry);
  void forget_later(const std::string& uuid);
  std::vector<std::string> names(const Entry& entry, quorum::Members members) const;

  EventLoop& loop_;
  const Config& config_;
  Cluster& cluster_;
  LocalSlices& slices_;
  OnAgreed on_agreed_;
  OnFenced on_fenced_;
  std::map<std::string, Entry> entries_;
};

// "a, b and c"
std::string list_text(const std::vector<std::string>& words);

}  // namespace xenspan::daemon
