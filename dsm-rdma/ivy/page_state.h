// What a host remembers about one page: its own right, its own request, and, at the page's manager,
// the directory entry.
//
// A plain value, all zero at the start. The machine (machine.h) is the only one that changes it;
// the caller serialises access to it. Checkers and statistics may read it. The fields of three
// roles live side by side because one host can play all three for a page at the same time. There
// are two of them with the same fields: PageState (20 bytes, copyset inside) for domains of up to
// 64 hosts, and WidePageState (16 bytes, copyset in a row of bits that only the page's manager has)
// for up to 1024. Beyond the width of the numbers, they differ in the copyset's place alone.
#pragma once

#include <cstdint>

#include "dsm-rdma/types.h"

namespace xenspan::dsm::ivy {

// This host's right as stored. Zero has to mean "as at the start", which is exclusive at the home,
// invalid elsewhere.
enum class Access : std::uint8_t { kInitial = 0, kShared = 1, kExclusive = 2, kInvalid = 3 };

// The local request that is under way.
// kRelease is stored as a kRead of a host that has a shared right already, which asks for none.
enum class Pending : std::uint8_t {
  kNothing = 0,
  kRead = 1,
  kWrite = 2,
  kDiscard = 3,
  kRelease = 4
};

// The version of a page counts its write transactions, modulo 4096: it names the one that made a
// host the owner, and every copy made since. Messages of more versions than there are hosts, and
// one, are never under way at once (each waits for the one before): twelve bits tell them apart.
inline constexpr unsigned kVersionBits = 12;
constexpr std::uint16_t next_version(unsigned version) {
  return static_cast<std::uint16_t>((version + 1) & ((1u << kVersionBits) - 1));
}

struct PageState {
  static constexpr unsigned kHosts = 64;

  // Manager: the copyset, every host with a right or with one under way, the owner included (valid
  // once directory_set).
  std::uint32_t hosts_low, hosts_high;

  // Requester.
  std::uint32_t txn;  // number of the pending request

  std::uint32_t version : kVersionBits;       // manager: of the owner's right
  std::uint32_t held_version : kVersionBits;  // holder: of this host's right
  std::uint32_t owner : 6;                    // manager: valid once directory_set
  std::uint32_t directory_set : 1;            // manager; 0: owner and only holder is the home
  std::uint32_t granted : 1;  // requester: the grant has come, acknowledgements may be missing

  std::uint32_t reads_sent : 6;     // manager: read forwards to the owner since `version` began
  std::uint32_t reads_served : 6;   // holder: read forwards answered since `held_version` began
  std::uint32_t acks_expected : 6;  // requester: from the grant
  std::uint32_t acks_received : 6;  // requester
  std::uint32_t pending : 2;        // requester: Pending
  std::uint32_t access : 2;         // holder: Access

  HostMask hosts() const { return HostMask{hosts_high} << 32 | hosts_low; }
  void set_hosts(HostMask mask) {
    hosts_low = static_cast<std::uint32_t>(mask);
    hosts_high = static_cast<std::uint32_t>(mask >> 32);
  }
};
static_assert(sizeof(PageState) == 20, "an engine's entry has 24 bytes a page");
static_assert(PageState::kHosts == kMaxHosts);

struct WidePageState {
  static constexpr unsigned kHosts = 1024;
  static constexpr unsigned kRowWords = kHosts / 64;  // of View::row

  std::uint32_t txn;

  std::uint32_t version : kVersionBits;
  std::uint32_t held_version : kVersionBits;
  std::uint32_t pending : 2;
  std::uint32_t access : 2;
  std::uint32_t directory_set : 1;
  std::uint32_t granted : 1;

  std::uint32_t owner : 10;
  std::uint32_t reads_sent : 10;
  std::uint32_t reads_served : 10;

  std::uint32_t acks_expected : 10;
  std::uint32_t acks_received : 10;
};
static_assert(sizeof(WidePageState) == 16);

}  // namespace xenspan::dsm::ivy
