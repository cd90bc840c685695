// What xen_probe can show of the Xen backend on real Xen, one function a command. Each prints what
// it saw and returns the program's exit status: 0 when all was as it should be.
#pragma once

#include "dom0-daemon/hypervisor/xen/xen_calls.h"

namespace xenspan::lab {

using hypervisor::xen::DomainId;
using hypervisor::xen::XenCalls;

inline constexpr int kRefused = 3;  // exit status: this machine cannot hold a slice

// Whether this host and this domain can hold a slice, and that Xen thinks so, too.
int show_capability(XenCalls& xen, DomainId domain);
int pin(XenCalls& xen, DomainId domain, unsigned vcpu, unsigned cpu);
// The guest makes rounds, its timer ticks and it computes what it should.
int show_beats(XenCalls& xen, DomainId domain);
// A vCPU that was taken stands while its domain is not paused, and goes on when it is put back.
int hold_and_release(XenCalls& xen, DomainId domain);
// The same for one of several, without looking at what it computes: the others stay up.
int swing(XenCalls& xen, DomainId domain, unsigned vcpu);
// Every interrupt the guest sends is seen before it takes effect, the vCPU standing until it is
// answered; and one from here arrives.
int watch_interrupts(XenCalls& xen, DomainId domain);
// Prints how many pages the guest may write, read, and neither.
int show_rights(XenCalls& xen, DomainId domain);
// Pages on demand: frames through the window, given back, zero again.
int fill_pages(XenCalls& xen, DomainId domain);
// Two slices of a domain of 512 MiB, both paused: together they use less than 1.3 times the memory
// that is touched.
int use_little_memory(XenCalls& xen, DomainId home, DomainId remote);
// The running vCPU of `from` goes on in `to`, and comes back.
int move_vcpu(XenCalls& xen, DomainId from, DomainId to);
// Makes two domains the slices of one guest, until SIGTERM: `home` runs vCPU 0 and `remote`,
// created paused from the same file, vCPU 1. With each SIGUSR1 vCPU 1 moves to the other slice.
int span(XenCalls& xen, DomainId home, DomainId remote);

// The test guest with gate=1 goes on; with until=1 and the word 2 it ends.
int open_gate(XenCalls& xen, DomainId domain, std::uint64_t word);

// Prints what is wrong; 1.
int fail(const std::string& what);

}  // namespace xenspan::lab
