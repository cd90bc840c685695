// Whether a host, and a domain on it, can hold a slice of a spanning domain under Xen, and the
// sentence for the admin when they cannot.
//
// Pure: facts in, verdict out. The sentences are those that man pages and xenstore show: they are
// here and nowhere else.
#pragma once

#include "base/result.h"
#include "dom0-daemon/hypervisor/xen/types.h"

namespace xenspan::hypervisor::xen {

// ENOTSUP with the reason when this host cannot hold a slice.
Status may_hold_slice(const HostFacts& host);
// The same for a domain that is there; `host` has passed.
Status may_be_slice(const DomainFacts& domain);

}  // namespace xenspan::hypervisor::xen
