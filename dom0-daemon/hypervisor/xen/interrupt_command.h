// What a vCPU asks of the others by writing its x2APIC's interrupt command register (MSR 0x830).
//
// Pure. Xen gives vCPU N of a domain the APIC id 2 N (Intel SDM vol. 3, 10.6.1 and 10.12.9).
#pragma once

#include <cstdint>

namespace xenspan::hypervisor::xen {

inline constexpr std::uint32_t kInterruptCommandMsr = 0x830;

constexpr std::uint8_t apic_id_of(unsigned vcpu) { return static_cast<std::uint8_t>(2 * vcpu); }

struct InterruptCommand {
  std::uint8_t vector = 0;
  bool ordinary = false;      // fixed or lowest priority; not INIT, start-up, NMI, SMI
  std::uint64_t targets = 0;  // bit N: vCPU N
};

// `vcpus` <= 64.
InterruptCommand decode_interrupt_command(std::uint64_t value, unsigned sender, unsigned vcpus);

}  // namespace xenspan::hypervisor::xen
