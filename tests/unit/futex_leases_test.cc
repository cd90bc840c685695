#include "dom0-daemon/hypervisor/usermode/futex_leases.h"

#include <gtest/gtest.h>

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint64_t kWord = 0x7f0000001000;

std::uint64_t wakes_until_lease(FutexLeases& leases, unsigned most, unsigned& wakes) {
  for (wakes = 1; wakes <= most; ++wakes)
    if (const std::uint64_t version = leases.on_idle_wake(kWord, 1)) return version;
  return 0;
}

// An address that shares kWord's place.
std::uint64_t neighbour() {
  std::uint64_t address = kWord + 4;
  while (futex_lease_place(address) != futex_lease_place(kWord)) address += 4;
  return address;
}

TEST(FutexLeases, SomeWakesInARowThatFindNobodyBringOne) {
  FutexLeases leases;
  unsigned wakes = 0;
  EXPECT_NE(wakes_until_lease(leases, 100, wakes), 0u);
  EXPECT_EQ(wakes, 4u);
}

TEST(FutexLeases, AWaiterInBetweenStartsTheCountAgain) {
  FutexLeases leases;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(leases.on_idle_wake(kWord, 1), 0u);
  EXPECT_EQ(leases.on_wait(kWord).hosts, 0u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(leases.on_idle_wake(kWord, 1), 0u);
  EXPECT_NE(leases.on_idle_wake(kWord, 1), 0u);
}

TEST(FutexLeases, AWaiterTakesThemBackFromAllHoldersOnce) {
  FutexLeases leases;
  unsigned wakes = 0;
  const std::uint64_t first = wakes_until_lease(leases, 100, wakes);
  const std::uint64_t second = leases.on_idle_wake(kWord, 3);
  EXPECT_GT(second, first);
  const auto back = leases.on_wait(kWord);
  EXPECT_EQ(back.hosts, dsm::mask_of(1) | dsm::mask_of(3));
  EXPECT_GT(back.version, second);
  EXPECT_EQ(leases.on_wait(kWord).hosts, 0u);
}

TEST(FutexLeases, EachTakingBackMakesTheNextOneDearer) {
  FutexLeases leases;
  unsigned wakes = 0;
  for (const unsigned wanted : {4u, 8u, 16u, 32u}) {
    ASSERT_NE(wakes_until_lease(leases, 2000, wakes), 0u);
    EXPECT_EQ(wakes, wanted);
    leases.on_wait(kWord);
  }
}

TEST(FutexLeases, AHolderKeepsItsPlaceAgainstOtherAddresses) {
  FutexLeases leases;
  unsigned wakes = 0;
  ASSERT_NE(wakes_until_lease(leases, 100, wakes), 0u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(leases.on_idle_wake(neighbour(), 1), 0u);
  EXPECT_EQ(leases.on_wait(neighbour()).hosts, 0u);
  EXPECT_EQ(leases.on_wait(kWord).hosts, dsm::mask_of(1));
}

TEST(IdleFutexes, KnowsTheAddressItWasGivenFor) {
  IdleFutexes idle;
  EXPECT_FALSE(idle.idle(kWord));
  idle.lease(kWord, 1);
  EXPECT_TRUE(idle.idle(kWord));
  EXPECT_FALSE(idle.idle(neighbour()));
  idle.take_back(kWord, 2);
  EXPECT_FALSE(idle.idle(kWord));
}

TEST(IdleFutexes, ALeaseThatArrivesAfterItWasTakenBackIsNone) {
  IdleFutexes idle;
  idle.take_back(kWord, 5);
  idle.lease(kWord, 4);
  EXPECT_FALSE(idle.idle(kWord));
  idle.lease(kWord, 6);
  EXPECT_TRUE(idle.idle(kWord));
}

TEST(IdleFutexes, AlsoWhenAnotherAddressHadThePlaceMeanwhile) {
  IdleFutexes idle;
  idle.lease(neighbour(), 3);
  idle.take_back(kWord, 5);  // of a lease that is still on its way
  EXPECT_TRUE(idle.idle(neighbour()));
  idle.lease(kWord, 4);
  EXPECT_FALSE(idle.idle(kWord));
}

// The slice has become the home: nothing that an older home gave it counts, however late it comes.
TEST(IdleFutexes, AllAreTakenBackAtOnce) {
  IdleFutexes idle;
  idle.lease(0x1000, 4);
  idle.take_back_all(5);
  EXPECT_FALSE(idle.idle(0x1000));
  idle.lease(0x2000, 5);
  EXPECT_FALSE(idle.idle(0x2000));
  idle.lease(0x2000, 6);
  EXPECT_TRUE(idle.idle(0x2000));
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
