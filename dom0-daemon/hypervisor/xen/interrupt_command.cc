#include "dom0-daemon/hypervisor/xen/interrupt_command.h"

namespace xenspan::hypervisor::xen {
namespace {

enum Shorthand : unsigned { kNone = 0, kSelf = 1, kAll = 2, kOthers = 3 };
constexpr std::uint32_t kBroadcast = 0xffffffff;

bool is_addressed(unsigned vcpu, std::uint32_t destination, bool logical) {
  if (destination == kBroadcast) return true;
  const std::uint32_t id = apic_id_of(vcpu);
  if (!logical) return id == destination;
  return id >> 4 == destination >> 16 && (destination >> (id & 15) & 1) != 0;
}

}  // namespace

InterruptCommand decode_interrupt_command(std::uint64_t value, unsigned sender, unsigned vcpus) {
  InterruptCommand command;
  command.vector = static_cast<std::uint8_t>(value);
  command.ordinary = (value >> 8 & 7) <= 1;
  const bool logical = (value >> 11 & 1) != 0;
  const auto shorthand = static_cast<unsigned>(value >> 18 & 3);
  const auto destination = static_cast<std::uint32_t>(value >> 32);
  for (unsigned vcpu = 0; vcpu < vcpus && vcpu < 64; ++vcpu) {
    const bool self = vcpu == sender;
    const bool meant = shorthand == kAll || (shorthand == kSelf && self) ||
                       (shorthand == kOthers && !self) ||
                       (shorthand == kNone && is_addressed(vcpu, destination, logical));
    if (meant) command.targets |= std::uint64_t{1} << vcpu;
  }
  return command;
}

}  // namespace xenspan::hypervisor::xen
