// All that a home keeps of its domain, in one value: what goes to the heir when the home's role
// moves. And its bytes.
//
// Pages, places of vCPUs and the registers of threads are not in it: the slices have them. Of a
// thread that is in a call at the home nothing is: such calls are made again (kStartAgain) where
// the home is then. What is bound to a host is named instead (open_files.h). The bytes come from
// another slice: parse_home_state() checks them all, and gives a state in which nothing refers to
// what is not there. Threading: pure functions on values.
#pragma once

#include <array>
#include <csignal>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/hypervisor/usermode/address_space.h"
#include "dom0-daemon/hypervisor/usermode/futex_leases.h"
#include "dom0-daemon/hypervisor/usermode/futex_table.h"
#include "dom0-daemon/hypervisor/usermode/home_ops.h"
#include "dom0-daemon/hypervisor/usermode/loader.h"
#include "dom0-daemon/hypervisor/usermode/open_files.h"
#include "dsm-rdma/types.h"

namespace xenspan::hypervisor::usermode {

inline constexpr std::uint32_t kHomeStateVersion = 1;
inline constexpr std::size_t kMaxHomeState = 64 << 20;

struct HomeState {
  struct Thread {
    std::int32_t tid = 0;
    std::uint32_t vcpu = 0, told_vcpu = 0;
    std::uint16_t host = 0;  // where it is
    std::int32_t core = 0;
    std::uint64_t mask = 0;
    std::uint32_t futex_count = 0;
    std::uint8_t woken = 0;  // between enqueuing and sleeping
    std::array<std::uint64_t, 16> affinity{};
    std::vector<siginfo_t> pending;
  };
  std::int32_t pid = 0, next_tid = 0;
  std::vector<Thread> threads;
  std::vector<FutexTable::Waiter> waiters;  // in the order of each queue
  FutexLeases::State leases;
  std::array<GuestAction, 65> actions{};
  std::vector<siginfo_t> pending;                   // the process's
  std::int64_t timer_left = 0, timer_interval = 0;  // ns; 0: off

  AddressSpace::State layout;
  std::uint64_t layout_version = 0;
  std::vector<std::pair<std::uint64_t, dsm::HostMask>> known_by;  // block of the layout, hosts told
  std::vector<std::pair<std::int32_t, OpenFile>> backings;        // files behind mappings

  Program program;
  std::string auxv;
  std::string cwd;
  std::uint32_t umask = 022;
  std::vector<OpenFile> files;
};

Packet pack(const HomeState& state);
// vcpus, descriptor_limit: of this domain. EBADMSG: malformed, says what; EPROTONOSUPPORT: of
// another version.
Result<HomeState> parse_home_state(const Packet& packet, unsigned vcpus, int descriptor_limit,
                                   std::uint64_t memory);

}  // namespace xenspan::hypervisor::usermode
