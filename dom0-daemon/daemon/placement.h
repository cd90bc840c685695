// Placement: which hosts a new domain spans, how many vCPUs each gets, and on which cores.
//
// A pure function of what the hosts said about themselves, so that every rule and every refusal can
// be tested. vCPUs are numbered in contiguous blocks, the home's first (vCPU 0, the program's first
// thread, is at home); block sizes follow the hosts' numbers of cores. A domain
// that is packed fills each host before the next. Within a host the least used cores are taken.
// Threading: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/daemon/host_record.h"

namespace xenspan::daemon {

inline constexpr int kMaxVcpus = 1024;

// A host the home knows of. `record` is valid when `active`.
struct HostChoice {
  std::string name;
  bool active = false;
  std::string error;  // why it is not active
  HostRecord record;
};

struct PlacementRequest {
  std::string home;
  std::vector<std::string> hosts;  // empty: all active ones
  int vcpus = 0;                   // 0: as many as the hosts have cores
  bool pack = false;               // fill one host after the other, and leave out the rest
  std::uint64_t memory = 0;        // bytes; 0: what the smallest host has, without a promise
};

struct Placement {
  struct Vcpu {
    int host;  // index into `hosts`
    int core;
  };
  std::vector<HostRecord> hosts;  // home first
  std::vector<Vcpu> vcpus;
  std::uint64_t memory = 0;
  bool memory_promised = false;  // counts against each host's memory

  int vcpus_on(int host) const;
};

// Where a vCPU goes on a host it moves to: the least used core. `own`: how many vCPUs of its domain
// are on each of the host's cores, which may be newer than what the host said.
struct CoreChoice {
  int core = 0;
  int shared = 0;  // vCPUs that are there already
};
CoreChoice choose_core(const HostRecord& host, const std::vector<int>& own);

// How many of a domain's vCPUs each host gets, at least as many as there are hosts: in proportion
// to cores, at least one, largest remainder first.
std::vector<int> vcpu_shares(int vcpus, const std::vector<HostRecord>& hosts);
// Whether a host can be in one domain with the home: its xenspan and its CPU.
Status check_joins(const HostRecord& home, const HostRecord& host);

// The refusal is one sentence that names the thing and the remedy.
Result<Placement> place(const PlacementRequest& request, const std::vector<HostChoice>& known);

}  // namespace xenspan::daemon
