// A slice's cache of the guest's layout: one byte a page, looked at on every fault before a right
// is asked for.
//
// The truth is the home's AddressSpace; a byte is filled from it on demand and forgotten when the
// home says so. Threading: lock-free, any thread, also signal handlers. Memory follows use (one
// byte a touched page).
#pragma once

#include <sys/mman.h>

#include <cstdint>

#include "dom0-daemon/hypervisor/usermode/address_space.h"
#include "dom0-daemon/hypervisor/usermode/window.h"

namespace xenspan::hypervisor::usermode {

class LayoutTable {
 public:
  static constexpr std::uint8_t kUnknown = 0;
  static constexpr std::uint8_t kKnown = 0x80;  // set in every known byte; low bits are PROT_*

  // Bytes of guest memory learnt at once. Where a block ends that is not followed by a known one, a
  // stream that runs ahead (dsm-rdma/prefetch.h) ends too; and who knows anything of a block is
  // told of every change in it.
  static constexpr std::uint64_t kBlock = 8 << 20;

  LayoutTable();
  ~LayoutTable();
  LayoutTable(const LayoutTable&) = delete;
  LayoutTable& operator=(const LayoutTable&) = delete;

  std::uint8_t at(dsm::Gfn gfn) const { return __atomic_load_n(&bytes_[gfn], __ATOMIC_RELAXED); }
  static bool allows(std::uint8_t byte, bool write) {
    const int prot = byte & (PROT_READ | PROT_WRITE | PROT_EXEC);
    return (byte & kKnown) != 0 && (write ? (prot & PROT_WRITE) != 0 : prot != 0);
  }
  // Records what the home said about `range`, within the aligned block around `address` only.
  void learn(std::uint64_t address, const Range& range, int prot) noexcept;
  void forget(const Range& range) noexcept;

 private:
  std::uint8_t* bytes_;
};

}  // namespace xenspan::hypervisor::usermode
