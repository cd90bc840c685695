// A host has died, and the others go on: what a slice asks of its engine for that. PROTOCOL.md,
// "When a host is lost", says why it is safe; ivy/rebuild.h what happens to a page.
//
// The calls are steps of a plan that one host makes (the home's daemon) once it is certain that the
// dead host does not run any more. Each is over on all hosts that are left before the next begins
// on any:
//
//   freeze(lost)    nothing new is asked for; what the lost hosts sent counts no more
//   traffic()       .. until it says the same twice in a row everywhere, all are idle, and each has
//                   received what each other has sent to it
//   forget(table, epoch)
//                   who manages what from now on: no lost host. The directory is empty, and what is
//                   sent from now on is of that epoch
//   claim()         .. then traffic() again
//   judge()         the pages that nobody has. When there are any the domain is over. Then
//                   traffic() again
//   abandon()       requests that will not be answered
//   thaw()          who wanted something asks again
//
// Another loss in between ends the domain: there is no way back from forget(). Only over TCP, and
// not where invalidations go out one by one (Feature::kParallel).
// Threading: any thread but the service thread, one call at a time.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "dsm-rdma/holdings.h"
#include "dsm-rdma/slot_table.h"
#include "dsm-rdma/types.h"

namespace xenspan::dsm {

struct PeerTraffic {
  std::array<std::uint64_t, kMaxHosts> sent{}, received{};  // messages, by host
  bool idle = false;  // nothing waits here for its time, and no slot is being given away
  friend bool operator==(const PeerTraffic&, const PeerTraffic&) = default;
};

class Survival {
 public:
  virtual Status freeze(HostMask lost) = 0;
  virtual PeerTraffic peer_traffic() = 0;
  virtual Status forget(const SlotTable& table, Epoch epoch) = 0;
  virtual Status claim() = 0;
  virtual Result<std::vector<PageRun>> judge() = 0;
  virtual Status abandon() = 0;
  virtual Status thaw() = 0;

 protected:
  ~Survival() = default;
};

}  // namespace xenspan::dsm
