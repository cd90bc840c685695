// A loss that a domain is ending from, or goes on after: which hosts, why, what its other hosts
// agree on, and what they know of the pages. Part of Domain (domain_loss.cc, domain_survival.cc); a
// plain value.
//
//   a slice lost its connection, the cluster lost the host, or the hosts agree that it is lost. No
//   vCPU was there: once an epoch without it has begun, those that are left build the page
//   directory anew (`rebuilding`), and the domain goes on if every page is left. Otherwise every
//   slice that is left stops its vCPUs (`halt`) and tells what it knows of the lost pages
//   (`holdings`); when that has come and the loss is agreed on, or its slice is known to have
//   ended, the home gives names to the first pages, and the domain fails with the whole story. Each
//   wait has a limit.
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
  // How good a cause is: what a slice saw of it, what the cluster says, how its slice ended.
  enum class Source { kAgreed, kSlice, kCluster, kEnd };

  std::vector<int> hosts;
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
