// A vCPU of a domain under Xen goes from one slice to another while the guest runs: the home's
// order, what the slices tell each other for it, and what becomes of interrupts meanwhile
// (vcpu_routes.h).
//
//   home -> target: kExpect            it keeps what comes for the vCPU
//   target -> home: kExpected
//   home -> source: kGive, or the home is the source: it passes on what comes for the vCPU, and
//                                      takes it
//   source -> target: kVcpu            its state; nothing of it is kept at the source
//   target -> home: kVcpuIsThere       it runs there
//   home -> others: kPlace
//
// A vCPU that cannot be taken stays, and one that cannot be put goes back. Nothing here knows Xen:
// taking, putting and sending are the owner's. Threading: handle() from the lines' readers, of
// which the home's own is not held up by an answer that it waits for; move() and flush() at the
// home, from any other thread, one at a time. Ownership: Ways' functions outlive it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/slice/vcpu_routes.h"
#include "dom0-daemon/slice/xen_lines.h"

namespace xenspan::slice {

class XenMoves {
 public:
  using Bytes = std::span<const std::byte>;
  using Kind = XenLines::Kind;
  struct Ways {
    // It does not run here any more; or an error, and it does as before.
    std::function<Result<std::vector<std::byte>>(unsigned vcpu)> take;
    // It runs here; or an error, and it does not.
    std::function<Status(unsigned vcpu, Bytes state)> put;
    VcpuRoutes::Deliver deliver;
    std::function<int(dsm::HostId to, Kind kind, unsigned vcpu, std::uint64_t value, Bytes bytes)>
        send;  // 0 or an errno
    // No fault of a vCPU that has left is under way any more.
    std::function<void()> quiet;
  };

  XenMoves(dsm::HostId self, std::vector<dsm::HostId> places, Ways ways,
           std::chrono::milliseconds limit = std::chrono::seconds(60));

  const VcpuRoutes& routes() const { return routes_; }
  // For a vCPU that is not here, as far as the slice knows.
  void interrupt(unsigned vcpu, std::uint8_t vector) { routes_.interrupt(vcpu, vector); }

  enum class Handled {
    kNo,  // not such a message
    kYes,
    kLost,  // a vCPU is nowhere: the domain cannot go on (lost())
  };
  Handled handle(const XenLines::Message& message);
  std::string lost() const;

  // At the home. EBUSY: the vCPU is where it was. Any other error: it is nowhere.
  Status move(unsigned vcpu, dsm::HostId to, const std::vector<dsm::HostId>& others);
  // At the home: no vCPU is on that host. Until nothing that was sent there for one is under way.
  Status flush(dsm::HostId host, const std::vector<dsm::HostId>& others);

 private:
  struct Answer {
    bool there = false;  // else: refused, with the reason
    dsm::HostId host = 0;
    unsigned vcpu = 0;
    std::string text;
  };

  void give(unsigned vcpu, dsm::HostId to);
  void take_in(const XenLines::Message& message);
  void tell_home(Kind kind, unsigned vcpu, const std::string& text);
  void mark(dsm::HostId to);
  void answered(Answer answer);
  Result<Answer> await(const std::string& what);

  const dsm::HostId self_;
  const Ways ways_;
  const std::chrono::milliseconds limit_;
  VcpuRoutes routes_;
  std::mutex moving_;  // one at a time

  mutable std::mutex lock_;  // the rest
  std::condition_variable has_answer_;
  std::vector<Answer> answers_;
  std::string lost_;
};

}  // namespace xenspan::slice
