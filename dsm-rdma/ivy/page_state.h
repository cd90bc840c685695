// What a host remembers about one page: its own right, its own request, and, at the page's manager,
// the directory entry.
//
// A plain value, all zero at the start. The machine (machine.h) is the only one that changes it;
// the caller serialises access to it. Checkers and statistics may read it. The fields of three
// roles live side by side because one host can play all three for a page at the same time. There
// are two of them with the same fields: PageState (16 bytes, copyset inside) for domains of up to
// 64 hosts, and WidePageState (12 bytes, copyset in a row of bits that only the page's manager has)
// for up to 1024. Beyond the width of the numbers, they differ in the copyset's place alone.
//
// The version of a page counts its write transactions, modulo 2^kVersionBits: it names the one that
// made a host the owner, and every copy made since. Messages of more versions than there are hosts,
// and one, are never under way at once (each waits for the one before): four times as many numbers
// as hosts tell them apart.
//
// Of the pending request's number the page keeps the low kTxnBits: enough to tell an answer to it
// from one to a request before it. Whoever numbers requests sees to it that an answer which is
// older than 2^kTxnBits requests never gets here (the engine looks at the whole number first).
#pragma once

#include <cstdint>

#include "dsm-rdma/types.h"

namespace xenspan::dsm::ivy {

// This host's right as stored. Zero has to mean "as at the start", which is exclusive at the home
// until it leaves, invalid elsewhere.
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

inline constexpr unsigned kTxnBits = 16;
constexpr std::uint32_t low_bits(std::uint32_t txn) { return txn & ((1u << kTxnBits) - 1); }

struct PageState {
  static constexpr unsigned kHosts = 64;
  static constexpr unsigned kVersionBits = 8;

  // Manager: the copyset, every host with a right or with one under way, the owner included (valid
  // once directory_set).
  std::uint32_t hosts_low, hosts_high;

  std::uint32_t txn : kTxnBits;               // requester: of the pending request
  std::uint32_t version : kVersionBits;       // manager: of the owner's right
  std::uint32_t held_version : kVersionBits;  // holder: of this host's right

  std::uint32_t owner : 6;          // manager: valid once directory_set
  std::uint32_t reads_sent : 6;     // manager: read forwards to the owner since `version` began
  std::uint32_t directory_set : 1;  // manager; 0: owner and only holder is the home, or nobody
  std::uint32_t only_shared : 1;    // manager: who is alone may be a reader
  std::uint32_t reads_served : 6;   // holder: read forwards answered since `held_version` began
  std::uint32_t access : 2;         // holder: Access
  std::uint32_t pending : 2;        // requester: Pending
  std::uint32_t granted : 1;        // requester: the grant has come
  std::uint32_t acks : 6;           // requester: acknowledgements that have come; once `granted`,
                                    // those that are missing

  HostMask hosts() const { return HostMask{hosts_high} << 32 | hosts_low; }
  void set_hosts(HostMask mask) {
    hosts_low = static_cast<std::uint32_t>(mask);
    hosts_high = static_cast<std::uint32_t>(mask >> 32);
  }
};
static_assert(sizeof(PageState) == 16, "an engine's entry has 20 bytes a page");
static_assert(PageState::kHosts == kMaxHosts);

struct WidePageState {
  static constexpr unsigned kHosts = 1024;
  static constexpr unsigned kVersionBits = 12;
  static constexpr unsigned kRowWords = kHosts / 64;  // of View::row

  std::uint32_t version : kVersionBits;
  std::uint32_t held_version : kVersionBits;
  std::uint32_t pending : 2;
  std::uint32_t access : 2;
  std::uint32_t directory_set : 1;
  std::uint32_t only_shared : 1;
  std::uint32_t granted : 1;

  std::uint32_t txn : kTxnBits;
  std::uint32_t owner : 10;

  std::uint32_t reads_sent : 10;
  std::uint32_t reads_served : 10;
  std::uint32_t acks : 10;
};
static_assert(sizeof(WidePageState) == 12);

template <typename Page>
constexpr std::uint16_t next_version(unsigned version) {
  static_assert(1u << Page::kVersionBits >= 4 * Page::kHosts);
  return static_cast<std::uint16_t>((version + 1) & ((1u << Page::kVersionBits) - 1));
}

}  // namespace xenspan::dsm::ivy
