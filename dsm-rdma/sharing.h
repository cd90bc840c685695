// Who fights over what: which vCPUs of this slice take pages from which hosts, and on which bytes
// of the most contended pages they fault. What `xenspan stats` and `xenspan advise` are made of.
//
// Two tables of fixed size, in memory that comes into being with its first use. `taken` is exact: a
// count for each vCPU and host that gave it a page. The table of pages is lossy: it keeps those
// that are faulted on most (Misra and Gries, Finding repeated elements, 1982: a newcomer wears the
// weakest of its set down before it takes its place), and for each the vCPUs and the bytes where
// they faulted, as ranges: a vCPU has up to four, the weakest of them grows when it touches more.
// Only the first touch after a page was lost faults, so that these are samples of what is accessed.
// Threading: any; note() is on the fault path, after the fault has been served: no lock, no
// allocation, relaxed atomics; a note that meets another one on the same page may be lost, or, at
// the moment a page is replaced, be counted for its successor. Ownership: owns its memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "dsm-rdma/types.h"

namespace xenspan::dsm {

struct Sharing {
  struct Taken {  // faults of this vCPU that were served by this host
    std::uint16_t vcpu;
    HostId from;
    std::uint64_t faults;
  };
  struct User {  // faults of this vCPU on bytes low .. high of the page
    std::uint16_t vcpu;
    std::uint16_t low, high;  // the first byte of an access
    bool writes;              // some asked for the right to write
    std::uint32_t faults;
  };
  struct Page {
    Gfn gfn;
    std::uint64_t faults;
    std::vector<User> users;  // by vCPU and byte
  };
  double seconds = 0;  // since counting began
  std::vector<Taken> taken;
  std::vector<Page> pages;  // most faulted first
};

class SharingTable {
 public:
  static constexpr unsigned kMostVcpus = 1024;
  static constexpr std::size_t kWays = 4, kSets = 192;  // 768 pages
  static constexpr std::size_t kSlots = 15, kRangesOfVcpu = 4;

  SharingTable() = default;
  ~SharingTable();
  SharingTable(const SharingTable&) = delete;
  SharingTable& operator=(const SharingTable&) = delete;
  Status create();

  // A fault has been served by `giver`; kNoHost: no other host gave anything up, and nothing is
  // counted.
  void note(Touch touch, Gfn gfn, bool writes, HostId giver) noexcept;

  // The `pages` most faulted ones.
  Sharing report(std::size_t pages) const;
  // Memory in use. Takes long.
  std::size_t bytes() const;

 private:
  struct Slot;
  struct Page;
  struct Tables;
  Page* find(Gfn gfn) noexcept;

  Tables* tables_ = nullptr;
  std::uint64_t start_ns_ = 0;
};

}  // namespace xenspan::dsm
