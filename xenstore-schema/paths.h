// Where everything is: the paths below /tool/xenspan, made and taken apart. xenspan-xenstore(5)
// documents each.
//
// Plain functions on plain values: any thread. Names that come from outside (command line, peers)
// must pass check_host_name or check_uuid before they become part of a path.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace xenspan::xenstore {

namespace paths {

inline constexpr const char* kRoot = "/tool/xenspan";
inline constexpr const char* kHosts = "/tool/xenspan/host";
inline constexpr const char* kDomains = "/tool/xenspan/domain";
inline constexpr const char* kConfigs = "/tool/xenspan/config";

std::string host(std::string_view name);
std::string domain(std::string_view uuid);
std::string members(std::string_view uuid);
std::string member(std::string_view uuid, std::string_view host);
std::string counters(std::string_view uuid, std::string_view host);
std::string vcpus(std::string_view uuid);
std::string vcpu(std::string_view uuid, uint32_t index);
// The declaration of a Xen domain that is to span.
std::string config(std::string_view uuid);

}  // namespace paths

// Names of nodes.
namespace node {

inline constexpr const char* kState = "state";
inline constexpr const char* kRequest = "request";
inline constexpr const char* kError = "error";
inline constexpr const char* kAddress = "address";
inline constexpr const char* kPort = "port";
inline constexpr const char* kCores = "cores";
inline constexpr const char* kCpus = "cpus";
inline constexpr const char* kMemoryTotal = "memory-total";
inline constexpr const char* kMemoryFree = "memory-free";
inline constexpr const char* kKernel = "kernel";
inline constexpr const char* kVersion = "version";
inline constexpr const char* kBackend = "backend";
inline constexpr const char* kRdma = "rdma";
inline constexpr const char* kCpuFeatures = "cpu-features";
inline constexpr const char* kCpuFeaturesHash = "cpu-features-hash";
inline constexpr const char* kHeartbeat = "heartbeat";
inline constexpr const char* kName = "name";
inline constexpr const char* kHome = "home";
inline constexpr const char* kKind = "kind";
inline constexpr const char* kTransport = "transport";
inline constexpr const char* kPolicy = "policy";
inline constexpr const char* kLastMove = "last-move";
inline constexpr const char* kMemory = "memory";
inline constexpr const char* kVcpus = "vcpus";
inline constexpr const char* kUser = "user";
inline constexpr const char* kCommand = "command";
inline constexpr const char* kExitStatus = "exit-status";
inline constexpr const char* kCreated = "created";
inline constexpr const char* kHost = "host";
inline constexpr const char* kCore = "core";
inline constexpr const char* kCpu = "cpu";
inline constexpr const char* kHosts = "hosts";
inline constexpr const char* kHoldUs = "hold-us";
inline constexpr const char* kVcpu = "vcpu";
inline constexpr const char* kThreads = "threads";
inline constexpr const char* kFaultsRead = "faults-read";
inline constexpr const char* kFaultsWrite = "faults-write";
inline constexpr const char* kFaultsUpgrade = "faults-upgrade";
inline constexpr const char* kFirstTouches = "first-touches";
inline constexpr const char* kBytesSent = "bytes-sent";
inline constexpr const char* kBytesReceived = "bytes-received";
inline constexpr const char* kPages = "pages";
inline constexpr const char* kCpuUs = "cpu-us";

}  // namespace node

// A path taken apart, for watch callbacks: what a change is about.
struct ParsedPath {
  enum class Kind { kHost, kDomain, kMember, kVcpu, kConfig };
  Kind kind = Kind::kHost;
  std::string host;   // kHost, kMember
  std::string uuid;   // all but kHost
  uint32_t vcpu = 0;  // kVcpu
  std::string node;   // what follows: "state", "counters/pages"; "" for the thing itself
};

// Nothing when the path is not about one host, domain, member, vCPU or configuration
// ("/tool/xenspan/domain").
std::optional<ParsedPath> parse_path(std::string_view path);

// 1 to 63 letters, digits, - and _ : what both xenstore and this schema can carry.
bool is_host_name(std::string_view text);
// 8-4-4-4-12 hexadecimal digits in small letters, as Xen writes it.
bool is_uuid(std::string_view text);
Status check_host_name(std::string_view name);
Status check_uuid(std::string_view uuid);

}  // namespace xenspan::xenstore
