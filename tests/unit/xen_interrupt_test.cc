// Which vCPUs a write to the x2APIC's interrupt command register addresses.
#include <gtest/gtest.h>

#include "dom0-daemon/hypervisor/xen/interrupt_command.h"

namespace xenspan::hypervisor::xen {
namespace {

std::uint64_t command(std::uint32_t destination, std::uint32_t low) {
  return std::uint64_t{destination} << 32 | low;
}
std::uint64_t targets(std::uint64_t value, unsigned sender = 0, unsigned vcpus = 4) {
  return decode_interrupt_command(value, sender, vcpus).targets;
}

TEST(InterruptCommand, OneByItsApicId) {
  EXPECT_EQ(targets(command(4, 0x40)), 0b0100u);
  EXPECT_EQ(targets(command(0, 0x40)), 0b0001u);
  EXPECT_EQ(targets(command(5, 0x40)), 0u) << "nobody has an odd id";
  EXPECT_EQ(targets(command(8, 0x40)), 0u) << "vCPU 4 is not there";
  EXPECT_EQ(decode_interrupt_command(command(4, 0x40), 0, 4).vector, 0x40);
}

TEST(InterruptCommand, ManyAtOnce) {
  EXPECT_EQ(targets(command(0xffffffff, 0x40)), 0b1111u);
  EXPECT_EQ(targets(command(0, 1u << 18 | 0x40), 2), 0b0100u);
  EXPECT_EQ(targets(command(0, 2u << 18 | 0x40), 2), 0b1111u);
  EXPECT_EQ(targets(command(0, 3u << 18 | 0x40), 2), 0b1011u);
}

TEST(InterruptCommand, LogicalIdsAreAClusterAndABit) {
  constexpr std::uint32_t kLogical = 1u << 11;
  EXPECT_EQ(targets(command(1u << 2, kLogical | 0x40)), 0b0010u);
  EXPECT_EQ(targets(command(1u << 2 | 1u << 6, kLogical | 0x40)), 0b1010u);
  // vCPU 8 has APIC id 16: the first of cluster 1.
  EXPECT_EQ(targets(command(1u << 16 | 1, kLogical | 0x40), 0, 10), 1u << 8);
  EXPECT_EQ(targets(command(1u << 16 | 1, kLogical | 0x40), 0, 4), 0u);
}

TEST(InterruptCommand, WhatIsNoOrdinaryInterrupt) {
  EXPECT_TRUE(decode_interrupt_command(command(2, 0x0040), 0, 4).ordinary);
  EXPECT_TRUE(decode_interrupt_command(command(2, 0x0140), 0, 4).ordinary);
  EXPECT_FALSE(decode_interrupt_command(command(2, 0x0400), 0, 4).ordinary);  // NMI
  EXPECT_FALSE(decode_interrupt_command(command(2, 0x4500), 0, 4).ordinary);  // INIT
  EXPECT_FALSE(decode_interrupt_command(command(2, 0x4608), 0, 4).ordinary);  // start-up
}

}  // namespace
}  // namespace xenspan::hypervisor::xen
