// A loss that a domain is ending from, or goes on after: which hosts, why, what its other hosts
// agree on, and what they know of the pages. Part of Domain (domain_loss.cc, domain_survival.cc); a
// plain value.
//
//   the cluster lost the host, the hosts agree that it is lost, or its slice has ended. No vCPU was
//   there: once an epoch without it has begun, those that are left build the page directory anew
//   (`rebuilding`), and the domain goes on if every page is left. Otherwise every slice that is
//   left stops its vCPUs (`halt`) and tells what it knows of the lost pages (`holdings`); when that
//   has come and the loss is agreed on, or its slice is known to have ended, the home gives names
//   to the first pages, and the domain fails with the whole story. Each wait has a limit.
//
//   Who is lost. A connection between two slices that has ended says that something is wrong with
//   one of them, not with which, and not what: the slice may have stopped because it failed, and is
//   about to say so. So it blames nobody (`unreached`): the evidence above follows, or what that
//   slice says itself, within the time that a loss takes to be agreed on. Only when nothing has
//   come by then counts the one that was not reached as lost. After `halt` connections end because
//   the domain stops, and that is no news.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "dom0-daemon/daemon/event_loop.h"
#include "dom0-daemon/daemon/json_fields.h"
#include "dom0-daemon/daemon/loss_report.h"

namespace xenspan::daemon {

struct DomainLoss {
  // How good a cause is: what a slice saw of it and stopped from, what the cluster says, how its
  // slice ended.
  enum class Source { kAgreed, kSlice, kCluster, kEnd };
  // The connection between two slices has ended: one says so of the other.
  struct Unreached {
    int by, host;
    std::string why;
  };

  std::vector<int> hosts;  // that are lost
  std::vector<Unreached> unreached;
  LossStory story;
  Source source = Source::kAgreed;
  bool certain = false;
  bool stops = false;  // the vCPUs have been told to: the domain ends
  bool naming = false;
  std::set<int> agreed;     // of `hosts`, those that an epoch has begun without
  bool rebuilding = false;  // there is no way back
  Json traffic;             // of all that are left, when it was looked at last
  std::unique_ptr<Timer> again;
  std::uint64_t id = 0;  // of the request under way
  std::map<std::string, Json> holdings;
  std::size_t expected = 0;
  std::vector<std::string> waiting;  // for their holdings
  std::unique_ptr<Timer> limit;
};

}  // namespace xenspan::daemon
