// What the daemon asks of Xen on this host: may it hold slices, which domains are there, and the
// few calls that act on one as a whole.
//
// A build without Xen's libraries, and a machine without Xen, have none: open() gives nullptr.
// Threading: the loop's thread; each call is one or a few hypercalls.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/daemon/xen_facts.h"

namespace xenspan::daemon {

struct XenGuest {
  unsigned id = 0;
  std::string uuid;
  bool paused = false;
  bool ended = false;  // shut down, or dying
  unsigned shutdown_reason = 0;
  unsigned vcpus = 0;
};

class XenHost {
 public:
  virtual ~XenHost() = default;
  static std::unique_ptr<XenHost> open();

  virtual XenFacts facts() = 0;
  virtual Result<std::vector<XenGuest>> guests() = 0;
  virtual Result<XenGuest> guest(unsigned id) = 0;
  // Why this domain cannot be a slice; "": it can.
  virtual std::string guest_problem(unsigned id) = 0;
  // Bit N: vCPU N was started by the guest.
  virtual std::uint64_t vcpus_up(const XenGuest& guest) = 0;
  // Counted by Xen: it runs when every pause has been undone.
  virtual Status pause(unsigned id) = 0;
  virtual Status unpause(unsigned id) = 0;
  virtual Status shut_down(unsigned id, unsigned reason) = 0;
};

}  // namespace xenspan::daemon
