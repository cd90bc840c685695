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
#include "dom0-daemon/daemon/json_fields.h"

namespace xenspan::daemon {

// What a host tells the others about its Xen.
struct XenFacts {
  std::string version;            // "4.17"; "": no Xen
  std::string problem;            // why it cannot hold a slice; "": it can
  std::uint64_t free_memory = 0;  // bytes
};
Json to_json(const XenFacts& facts);
XenFacts xen_facts_from(const Json& object);

// Why a host with these facts cannot hold a slice of a domain at home on `home`; "" when it can.
// `memory`: bytes of the domain.
std::string xen_refusal(const std::string& host, const XenFacts& facts, const std::string& home,
                        const XenFacts& home_facts, std::uint64_t memory);

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
  virtual Status pause(unsigned id) = 0;
  virtual Status shut_down(unsigned id, unsigned reason) = 0;
};

}  // namespace xenspan::daemon
