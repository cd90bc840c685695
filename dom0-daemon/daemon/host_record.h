// What one host tells the others about itself, in its hello and with each heartbeat.
//
// Written by the host's own daemon, mirrored to every host's xenstore. A record read from a peer
// has been checked: names and numbers are in range. Threading: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/daemon/cpu_features.h"
#include "dom0-daemon/daemon/json_fields.h"
#include "dom0-daemon/daemon/rdma_port.h"
#include "dom0-daemon/daemon/xen_facts.h"

namespace xenspan::daemon {

inline constexpr std::size_t kMaxCores = 4096;

struct HostRecord {
  std::string name;
  std::string address;
  std::uint16_t port = 0;
  std::string kernel;             // release, for people
  std::string version;            // of the package: slices of different versions do not mix
  std::vector<int> cores;         // for vCPUs, in order of preference
  std::vector<int> core_use;      // vCPUs now placed on each of `cores`
  std::vector<int> others;        // 1/1000 of each of `cores` that other work takes; empty: unknown
  std::uint64_t memory = 0;       // bytes that domains may use
  std::uint64_t memory_used = 0;  // bytes promised to domains
  CpuFeatures cpu{};
  RdmaPort rdma;  // the device its slices would use
  XenFacts xen;
  bool encrypt = false;  // this host wants guest memory encrypted on the wire

  int vcpus() const;
  std::uint64_t memory_free() const { return memory > memory_used ? memory - memory_used : 0; }
};

Json to_json(const HostRecord& record);
Result<HostRecord> host_record_from(const Json& object);

}  // namespace xenspan::daemon
