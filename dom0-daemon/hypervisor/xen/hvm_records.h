// The state of a domain's vCPUs as Xen saves it: a run of records, each with a type, an instance
// (the vCPU) and a length (xen/hvm/save.h).
//
// Pure: bytes in, bytes out; what it is given may come from another host, so every length is
// checked. Records of types it does not know are passed over. Threading: a plain value. Ownership:
// it owns a copy of the bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace xenspan::hypervisor::xen {

// A few of a vCPU's registers, for logs and tests.
struct VcpuRegisters {
  std::uint64_t rip = 0, rsp = 0, cr3 = 0, tsc = 0;
};

class HvmRecords {
 public:
  // EPROTO: not such a run, or that of a Xen whose records have other sizes.
  static Result<HvmRecords> parse(std::span<const std::byte> bytes);

  unsigned vcpus()
      const;  // those that have a record of registers: Xen saves none of one that is down
  // The header, what makes up this vCPU, and the end: a set that can be loaded by itself, into
  // another domain. ENOENT: the vCPU is not there, or is down.
  Result<std::vector<std::byte>> of_vcpu(unsigned vcpu) const;
  // What Xen needs to leave the others as they are when that vCPU is loaded, without a header or an
  // end: registers and processor state of each that is up. Empty: there is none.
  std::vector<std::byte> others_than(unsigned vcpu) const;
  Result<VcpuRegisters> registers(unsigned vcpu) const;

 private:
  struct Record {
    std::uint16_t type = 0, vcpu = 0;
    std::size_t start = 0, end = 0;  // with its descriptor
  };
  bool has_twins() const;
  const Record* find(std::uint16_t type, unsigned vcpu) const;

  std::vector<std::byte> bytes_;
  std::vector<Record> records_;
};

// Moves the guest's TSC on by so many ticks in a set of vCPUs: the time since they were read. A
// guest's TSC must never be seen to go back.
Status advance_tsc(std::span<std::byte> records, std::uint64_t ticks);

// Puts what others_than() gave into a set of one vCPU, before it: Xen loads them in this order.
Status add_others(std::vector<std::byte>& set, std::span<const std::byte> others);

}  // namespace xenspan::hypervisor::xen
