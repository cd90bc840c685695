// Typed access: hosts, domains, members, counters and vCPU placement as records, read from and
// written to a store.
//
// Every function runs as one transaction on a Store, or as part of the caller's on a Transaction
// (Nodes::atomically), so a record is never seen half written. Reading checks every value: an error
// names the path and what was expected. Requests are written by admins: write_* never touches them,
// only request_* and clear_request do. Called by xenspand, the command line and tests, in the
// thread that owns the store. Records are plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "xenstore-schema/paths.h"
#include "xenstore-schema/store.h"
#include "xenstore-schema/values.h"

namespace xenspan::xenstore {

struct HostRecord {
  std::string name;  // part of the path
  HostState state = HostState::kStarting;
  std::string address;  // where its xenspand and slices listen
  uint16_t port = 0;    // xenspand's
  uint32_t cores = 0;   // how many vCPUs can have a core of their own
  std::vector<uint32_t> cpus;
  uint64_t memory_total_kib = 0;
  uint64_t memory_free_kib = 0;
  std::string kernel;
  std::string version;
  Backend backend = Backend::kUsermode;
  std::string rdma;  // device and port, "mlx5_0/1"; "": none
  std::vector<std::string> cpu_features;
  std::string cpu_features_hash;  // read only: writing makes it from cpu_features
  uint64_t heartbeat = 0;         // seconds since 1970 when xenspand last wrote
  std::string error;
  HostRequest request = HostRequest::kNone;  // read only
};

struct DomainRecord {
  std::string uuid;  // part of the path
  std::string name;
  DomainState state = DomainState::kCreating;
  std::string home;
  Backend kind = Backend::kUsermode;
  Transport transport = Transport::kNone;
  Policy policy = Policy::kSpread;
  std::string last_move;  // of a vCPU by the policy, and why; "": none yet
  uint64_t memory_kib = 0;
  uint32_t vcpus = 1;
  std::string user;
  std::string command;                  // for people: one line, cut when long
  std::optional<uint32_t> exit_status;  // 0 to 255, once it has ended
  std::string error;
  uint64_t created = 0;                          // seconds since 1970
  DomainRequest request = DomainRequest::kNone;  // read only
};

// Totals since the slice began; written once a second, those that have changed.
struct Counters {
  uint64_t faults_read = 0;
  uint64_t faults_write = 0;
  uint64_t faults_upgrade = 0;
  uint64_t first_touches = 0;
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
  uint64_t pages = 0;
  uint64_t cpu_us = 0;
  uint64_t threads = 0;  // guest threads there now

  friend bool operator==(const Counters&, const Counters&) = default;
};

struct MemberRecord {
  std::string host;  // part of the path
  MemberState state = MemberState::kJoining;
  uint32_t vcpus = 0;  // placed there
  std::string error;
  Counters counters;                             // written by write_counters only
  MemberRequest request = MemberRequest::kNone;  // read only
};

struct VcpuRecord {
  uint32_t index = 0;  // part of the path
  std::string host;
  uint32_t core = 0;
  uint32_t threads = 0;  // guest threads that run on it
};

Status write_host(Nodes& nodes, const HostRecord& record);
Result<HostRecord> read_host(Nodes& nodes, const std::string& name);
// State and error change together. An empty error clears the last one.
Status set_host_state(Nodes& nodes, const std::string& name, HostState state,
                      const std::string& error = {});
// What a heartbeat changes.
Status set_host_heartbeat(Nodes& nodes, const std::string& name, uint64_t heartbeat,
                          uint64_t memory_free_kib);
Status request_host(Nodes& nodes, const std::string& name, HostRequest request);
Status remove_host(Nodes& nodes, const std::string& name);

// The record's own nodes; members and vCPUs are written by their own functions.
Status write_domain(Nodes& nodes, const DomainRecord& record);
Result<DomainRecord> read_domain(Nodes& nodes, const std::string& uuid);
Status set_domain_state(Nodes& nodes, const std::string& uuid, DomainState state,
                        const std::string& error = {}, std::optional<uint32_t> exit_status = {});
Status request_domain(Nodes& nodes, const std::string& uuid, DomainRequest request);
// The domain with its members and vCPUs.
Status remove_domain(Nodes& nodes, const std::string& uuid);

Status write_member(Nodes& nodes, const std::string& uuid, const MemberRecord& record);
// `told`: what the nodes hold already; those that differ from it are written.
Status write_counters(Nodes& nodes, const std::string& uuid, const std::string& host,
                      const Counters& counters, const Counters* told = nullptr);
Result<MemberRecord> read_member(Nodes& nodes, const std::string& uuid, const std::string& host);
Status set_member_state(Nodes& nodes, const std::string& uuid, const std::string& host,
                        MemberState state, const std::string& error = {});
Status request_member(Nodes& nodes, const std::string& uuid, const std::string& host,
                      MemberRequest request);
// The member with its counters.
Status remove_member(Nodes& nodes, const std::string& uuid, const std::string& host);

Status write_vcpu(Nodes& nodes, const std::string& uuid, const VcpuRecord& record);
Result<VcpuRecord> read_vcpu(Nodes& nodes, const std::string& uuid, uint32_t index);

// Removes the request below a host, domain or member (a path of paths::). Use it in one transaction
// with the state or error that answers it.
Status clear_request(Nodes& nodes, const std::string& path);

// Names, sorted; none when nothing was ever written. Nodes whose names are not of that kind are
// left out.
Result<std::vector<std::string>> list_hosts(Nodes& nodes);
Result<std::vector<std::string>> list_domains(Nodes& nodes);
Result<std::vector<std::string>> list_members(Nodes& nodes, const std::string& uuid);
Result<std::vector<uint32_t>> list_vcpus(Nodes& nodes, const std::string& uuid);

}  // namespace xenspan::xenstore
