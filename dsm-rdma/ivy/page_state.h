// What a host remembers about one page: its own right, its own request, and, at the page's manager,
// the directory entry.
//
// A plain value of 20 bytes, all zero at the start. The machine (machine.h) is the only one that
// changes it; the caller serialises access to it. Checkers and statistics may read it. The fields
// of three roles live side by side because one host can play all three for a page at the same time.
#pragma once

#include <cstdint>

#include "dsm-rdma/types.h"

namespace xenspan::dsm::ivy {

// This host's right as stored. Zero has to mean "as at the start", which is exclusive at the home,
// invalid elsewhere.
enum class Access : std::uint8_t { kInitial = 0, kShared = 1, kExclusive = 2, kInvalid = 3 };

// The local request that is under way.
enum class Pending : std::uint8_t { kNothing = 0, kRead = 1, kWrite = 2, kDiscard = 3 };

struct PageState {
  // One mask, two uses that never meet.
  // At the manager: the copyset, every host with a right, the owner included (valid once
  // directory_set). At a host with a write request: the hosts whose acknowledgement has come. A
  // manager that serves its own write request has sent the invalidations by then and does not need
  // the copyset any more: kDone replaces it.
  std::uint32_t hosts_low, hosts_high;

  // Requester.
  std::uint32_t txn;                // number of the pending request
  std::uint32_t queue_tail : 22;    // manager: last waiting request (WaitPool), 0 when none waits
  std::uint32_t acks_expected : 6;  // from the grant
  std::uint32_t pending : 2;        // Pending
  std::uint32_t access : 2;         // Access

  // Manager.
  std::uint32_t busy_txn : 16;       // low bits of the txn that is being served
  std::uint32_t owner : 6;           // valid once directory_set
  std::uint32_t busy_requester : 6;  // whose request is being served
  std::uint32_t granted : 1;     // requester: the grant has come, acknowledgements may be missing
  std::uint32_t busy : 1;        // a request is being served: from request to kDone
  std::uint32_t busy_write : 1;  // it is a write request
  std::uint32_t directory_set : 1;  // 0: owner and only holder is the home

  HostMask hosts() const { return HostMask{hosts_high} << 32 | hosts_low; }
  void set_hosts(HostMask mask) {
    hosts_low = static_cast<std::uint32_t>(mask);
    hosts_high = static_cast<std::uint32_t>(mask >> 32);
  }
};
static_assert(sizeof(PageState) == 20, "an engine's entry has 24 bytes a page");
static_assert(kMaxHosts == 64, "host fields have 6 bits");

}  // namespace xenspan::dsm::ivy
