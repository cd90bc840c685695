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
  unsigned vcpu = 0;
  std::vector<std::byte> records;  // as HvmRecords::of_vcpu
  VcpuRegisters registers;         // of when it was taken
  // When registers.tsc was its TSC, by monotonic_ns() of this host. Whoever carries it to another
  // host translates it to that host's clock.
  std::uint64_t taken_ns = 0;
};

// How a vCPU's TSC was brought in step after it was put.
struct TscFit {
  std::int64_t behind = 0;  // ticks that are missing still; negative: it is ahead
  unsigned tries = 0;
};

// A vCPU's TSC at a moment of monotonic_ns().
struct TscPoint {
  std::uint64_t tsc = 0, ns = 0;
  std::uint64_t width_ns = 0;  // the moment is this long
};

// The domain is paused for the moment it takes.
Result<VcpuContext> take_vcpu(XenCalls& xen, DomainId from, unsigned vcpu);
// It runs from now on, unless the domain is paused, and its TSC goes on as if it had never been
// away: what the way into Xen takes is measured and made up for. When it fails the vCPU is down
// here, and can be put back where it came from. `behind`: of those that are up here already; they
// are late by as much as this one afterwards.
Status put_vcpu(XenCalls& xen, DomainId to, const VcpuContext& context, TscFit* fit = nullptr,
                std::int64_t behind = 0);
// For one that was taken where all are so much behind.
Status make_up_for(VcpuContext& context, std::int64_t behind);

// The narrowest of some readings; the domain is paused meanwhile.
Result<TscPoint> read_tsc(XenCalls& xen, DomainId domain, unsigned vcpu);
// Ticks in so many nanoseconds.
std::int64_t ticks_in(std::int64_t ns, unsigned khz);

// CLOCK_MONOTONIC_RAW: nobody sets or slews it.
std::uint64_t monotonic_ns();

}  // namespace xenspan::hypervisor::xen
