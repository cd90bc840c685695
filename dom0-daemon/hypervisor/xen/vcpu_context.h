// A vCPU out of one slice and into another: its registers, FPU, local APIC, MTRRs and TSC.
//
// That one mechanism serves spreading, adding a host, draining one, balancing, and holding a vCPU
// while the others of its slice run (Debian's Xen has no order for that). A vCPU that was taken is
// down in its slice, until it is put there again: it never runs in two. The memory it touches is
// the engine's business. Threading: one thread. Errors: sentences for the log. Ownership: `xen` is
// borrowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/hypervisor/xen/hvm_records.h"
#include "dom0-daemon/hypervisor/xen/xen_calls.h"

namespace xenspan::hypervisor::xen {

struct VcpuContext {
  std::vector<std::byte> records;  // as HvmRecords::of_vcpu
  VcpuRegisters registers;         // of when it was taken
  std::uint64_t taken_ns = 0;      // CLOCK_MONOTONIC of this host
};

// The domain is paused for the moment it takes.
Result<VcpuContext> take_vcpu(XenCalls& xen, DomainId from, unsigned vcpu);
// It runs from now on, unless the domain is paused. `away_ns` is added to the guest's TSC, at the
// guest's frequency: the time since it was taken, as far as the hosts' clocks agree. When it fails
// the vCPU can still be put back where it came from.
Status put_vcpu(XenCalls& xen, DomainId to, const VcpuContext& context, std::uint64_t away_ns);

std::uint64_t monotonic_ns();

}  // namespace xenspan::hypervisor::xen
