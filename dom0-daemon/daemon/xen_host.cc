#include "dom0-daemon/daemon/xen_host.h"

#include <fmt/format.h>

#include "base/log.h"
#include "config.h"
#ifdef HAVE_XEN
#include "dom0-daemon/hypervisor/xen/capabilities.h"
#include "dom0-daemon/hypervisor/xen/xen_calls.h"
#endif

namespace xenspan::daemon {

#ifdef HAVE_XEN

namespace {

namespace xen = hypervisor::xen;

std::string uuid_text(const std::array<std::uint8_t, 16>& bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", bytes[i]);
  }
  return text;
}

XenGuest guest_of(const xen::DomainFacts& facts) {
  return {facts.id,
          uuid_text(facts.uuid),
          facts.paused,
          facts.shut_down || facts.dying,
          facts.shutdown_reason,
          facts.vcpus};
}

class RealXenHost final : public XenHost {
 public:
  explicit RealXenHost(std::unique_ptr<xen::XenCalls> calls) : calls_(std::move(calls)) {}

  XenFacts facts() override {
    XenFacts facts;
    const auto host = calls_->host();
    if (!host) return facts;
    facts.version = fmt::format("{}.{}", host->version_major, host->version_minor);
    if (Status can = xen::may_hold_slice(*host); !can) facts.problem = can.error().message;
    facts.free_memory = host->free_pages << dsm::kPageShift;
    return facts;
  }
  Result<std::vector<XenGuest>> guests() override {
    const auto all = calls_->domains();
    if (!all) return all.error();
    std::vector<XenGuest> guests;
    for (const xen::DomainFacts& each : *all) guests.push_back(guest_of(each));
    return guests;
  }
  Result<XenGuest> guest(unsigned id) override {
    const auto facts = calls_->domain(id);
    if (!facts) return facts.error();
    return guest_of(*facts);
  }
  std::string guest_problem(unsigned id) override {
    const auto facts = calls_->domain(id);
    if (!facts) return facts.error().message;
    const Status can = xen::may_be_slice(*facts);
    return can ? std::string() : can.error().message;
  }
  std::uint64_t vcpus_up(const XenGuest& guest) override {
    const auto up = calls_->vcpus_up(guest.id, guest.vcpus);
    return up ? *up : 0;
  }
  Status pause(unsigned id) override { return calls_->pause(id); }
  Status unpause(unsigned id) override { return calls_->unpause(id); }
  Status shut_down(unsigned id, unsigned reason) override { return calls_->shut_down(id, reason); }

 private:
  const std::unique_ptr<xen::XenCalls> calls_;
};

}  // namespace

std::unique_ptr<XenHost> XenHost::open() {
  auto calls = xen::XenCalls::open();
  if (!calls) {
    log::debug("no Xen: {}", calls.error().message);
    return nullptr;
  }
  return std::make_unique<RealXenHost>(std::move(*calls));
}

#else

std::unique_ptr<XenHost> XenHost::open() { return nullptr; }

#endif

}  // namespace xenspan::daemon
