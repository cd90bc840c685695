// The words of the coherence engine (see PROTOCOL.md): gfn, host, right, lane, epoch.
// Includes nothing of Xen, of processes or of libevent; every room below dsm-rdma/ may include it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xenspan::dsm {

// Guest frame number: guest-physical address (user-mode domains: offset in the address window) /
// kPageSize.
using Gfn = std::uint64_t;
inline constexpr std::size_t kPageSize = 4096;
inline constexpr unsigned kPageShift = 12;

// Index of a host in its domain, 0 .. hosts-1. A copyset is one bit a host, hence the limit.
using HostId = std::uint8_t;
inline constexpr unsigned kMaxHosts = 64;
using HostMask = std::uint64_t;
constexpr HostMask mask_of(HostId host) { return HostMask{1} << host; }

// A slice's right to a page. Xen: n, rx, rwx. User-mode: not mapped, write-protected, mapped.
enum class Right : std::uint8_t { kInvalid = 0, kShared = 1, kExclusive = 2 };

// What touched a page.
struct Touch {
  std::uint64_t site = 0;  // address of the instruction, or 0: not known
};

// Where the answers to a request are to be sent at the requester. Lane 0 is read by the slice's
// service thread; lanes 1.. are each read by the one faulting thread that has borrowed it, so that
// an answer wakes just the thread it is for.
using Lane = std::uint16_t;
inline constexpr Lane kServiceLane = 0;

// Pages that are asked for beside one that is touched, at most: a thread has sixteen requests under
// way (dsm-rdma/prefetch.h).
inline constexpr unsigned kMostPrefetch = 15;

// Counts the memberships of a domain; a message of another epoch is refused.
using Epoch = std::uint32_t;

}  // namespace xenspan::dsm
