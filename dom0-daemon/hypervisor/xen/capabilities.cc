#include "dom0-daemon/hypervisor/xen/capabilities.h"

#include <fmt/format.h>

#include <cerrno>

#include "dom0-daemon/hypervisor/xen/event_ring.h"

namespace xenspan::hypervisor::xen {
namespace {

constexpr char kAmd[] =
    "this host has an AMD processor, and Xen has mem_access on Intel processors only (VT-x with "
    "EPT): place the domain's vCPUs on Intel hosts";
constexpr char kNoVmx[] =
    "this host's processor shows no Intel VT-x, which Xen's mem_access needs: switch it on in the "
    "firmware, or place the domain's vCPUs on other hosts";
constexpr char kNoEpt[] =
    "this host's Xen uses no hardware-assisted paging (EPT), which mem_access needs: take "
    "`hap=0` from Xen's command line, or place the domain's vCPUs on other hosts";

}  // namespace

Status may_hold_slice(const HostFacts& host) {
  if (host.svm && !host.vmx) return Error{ENOTSUP, kAmd};
  if (!host.vmx || !host.hvm) return Error{ENOTSUP, kNoVmx};
  if (!host.hap) return Error{ENOTSUP, kNoEpt};
  if (host.vm_event_version != kEventVersion) {
    return Error{ENOTSUP, fmt::format("Xen {}.{} speaks version {} of vm_event and xenspan was "
                                      "built for version {}: build it with this Xen's libxen-dev",
                                      host.version_major, host.version_minor, host.vm_event_version,
                                      kEventVersion)};
  }
  return {};
}

Status may_be_slice(const DomainFacts& domain) {
  if (!domain.hvm) {
    return Error{ENOTSUP, fmt::format("domain {} is paravirtualised, and Xen has mem_access for "
                                      "PVH and HVM domains only: put type = \"pvh\" into its "
                                      "xl file",
                                      domain.id)};
  }
  if (!domain.hap) {
    return Error{ENOTSUP, fmt::format("domain {} runs without hardware-assisted paging, which "
                                      "mem_access needs: take hap = 0 from its xl file",
                                      domain.id)};
  }
  if (domain.dying || domain.shut_down) {
    return Error{ESHUTDOWN, fmt::format("domain {} has ended: see `xl list`", domain.id)};
  }
  return {};
}

}  // namespace xenspan::hypervisor::xen
