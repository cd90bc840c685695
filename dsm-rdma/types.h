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

// Index of a host in its domain, 0 .. hosts-1. A page's entry has room for a copyset of kMaxHosts,
// one bit a host. The protocol itself goes further (ivy/page_state.h: WidePageState).
using HostId = std::uint16_t;
inline constexpr unsigned kMaxHosts = 64;
using HostMask = std::uint64_t;
inline constexpr HostId kNoHost = 0xff;
constexpr HostMask mask_of(HostId host) { return HostMask{1} << host; }

// How often a slot's manager has changed, modulo 65536. Two that are compared are never 32768
// apart: hosts hear of every move.
using Moves = std::uint16_t;
constexpr bool newer(Moves a, Moves b) { return static_cast<std::int16_t>(a - b) > 0; }
// Zero is for slots that have never moved.
constexpr Moves next_move(Moves moves) {
  const auto next = static_cast<Moves>(moves + 1);
  return next == 0 ? Moves{1} : next;
}

// A slice's right to a page. Xen: n, rx, rwx. User-mode: not mapped, write-protected, mapped.
enum class Right : std::uint8_t { kInvalid = 0, kShared = 1, kExclusive = 2 };

// What touched a page, and at which of its bytes: for guesses and for statistics (sharing.h).
inline constexpr std::uint16_t kNoVcpu = 0xffff;
struct Touch {
  std::uint64_t site = 0;        // address of the instruction, or 0: not known
  std::uint16_t vcpu = kNoVcpu;  // kNoVcpu: not a vCPU; not counted
  std::uint16_t offset = 0;      // of the access's first byte in the page
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
