// A vCPU out of one slice and into another: its registers, FPU, local APIC, MTRRs and TSC.
//
// That one mechanism serves spreading, adding a host, draining one and balancing. The caller sees
// to it that the vCPU runs in one slice at a time: held here before it is taken, released there
// after it was put; the memory it touches is the engine's business. Threading: one thread. Errors:
// sentences for the log. Ownership: `xen` is borrowed.
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

// The vCPU has to stand still: held, or its domain paused.
Result<VcpuContext> take_vcpu(XenCalls& xen, DomainId from, unsigned vcpu);
// `away_ns` is added to the guest's TSC, at the guest's frequency: the time since it was taken, as
// far as the hosts' clocks agree.
Status put_vcpu(XenCalls& xen, DomainId to, VcpuContext context, std::uint64_t away_ns);

// Hold and release while the domain runs.
Status hold_vcpu(XenCalls& xen, DomainId domain, unsigned vcpu);
Status release_vcpu(XenCalls& xen, DomainId domain, unsigned vcpu);

std::uint64_t monotonic_ns();

}  // namespace xenspan::hypervisor::xen
