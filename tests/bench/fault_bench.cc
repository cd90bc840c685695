#include "tests/bench/fault_bench.h"

#include <sstream>

#include "dom0-daemon/hypervisor/usermode/service_threads.h"
#include "dsm-rdma/transport/tcp/tcp_transport.h"
#include "tests/bench/process.h"
#include "tests/bench/raw_tcp.h"
#include "tests/bench/samples.h"

namespace xenspan::bench {
namespace {

constexpr std::size_t kBatch = 100;

constexpr unsigned kWarmUpRounds =
    2;  // first contact with each page and connection is not what is measured

Result<std::vector<double>> guest_batch(Process& probe, const std::string& command) {
  if (const Status sent = probe.write_line(command + " " + std::to_string(kBatch)); !sent)
    return sent.error();
  auto line = probe.read_line();
  if (!line) return line.error();
  std::istringstream words(*line);
  std::string kind;
  words >> kind;
  std::vector<double> samples;
  for (double value; words >> value;) samples.push_back(value);
  if (kind != command || samples.size() != kBatch) {
    return Error{0, "fault_probe answered '" + line->substr(0, 60) + "'"};
  }
  return samples;
}

// The policy of the two ends of a slice: dsm-rdma/transport/tcp and the worker's service thread.
WaitingPolicy slice_policy() {
  const dsm::tcp::MeshConfig defaults;
  return WaitingPolicy{defaults.wait, defaults.serve_spin_us,
                       static_cast<int>(hypervisor::usermode::Priority::kFaults)};
}

Status alternate(const FaultBench& bench, Process& probe, RawTcp& raw, unsigned rounds,
                 Measurement& result) {
  for (unsigned round = 0; round < rounds + kWarmUpRounds; round++) {
    auto faults = guest_batch(probe, bench.command);
    if (!faults) return faults.error();
    auto trips = raw.round_trips(kBatch, bench.baseline_bytes);
    if (!trips) return trips.error();
    if (round < kWarmUpRounds) continue;
    for (const double ns : *faults) result.measured.add(ns / 1000);
    for (const double ns : *trips) result.baseline.add(ns / 1000);
  }
  return {};
}

}  // namespace

const std::vector<FaultBench>& fault_benches() {
  static const std::vector<FaultBench> benches = {
      {"fault.read.remote", "read", 64 + 4096},
      {"fault.write.remote", "write", 64 + 4096},
      {"fault.upgrade", "upgrade", 64},
  };
  return benches;
}

Status measure(const FaultBench& bench, const Testbed& bed, const std::string& guests,
               unsigned rounds) {
  auto probe = Process::start(bed.run(2, {guests + "/fault_probe"}));
  if (!probe) return probe.error();
  auto ready = probe->read_line();
  if (!ready) return ready.error();
  const BedHost &home = bed.hosts()[0], &other = bed.hosts()[1];
  auto raw = RawTcp::start({home.netns, home.address, home.core},
                           {other.netns, other.address, other.core}, slice_policy());
  if (!raw) return raw.error();

  Measurement result{
      .bench = bench.name, .unit = "us", .measured = {}, .baseline = {}, .hosts = bed.names(2)};
  if (const Status status = alternate(bench, *probe, *raw, rounds, result); !status) return status;
  if (const Status status = probe->write_line("quit"); !status) return status;
  if (const int status = probe->finish().status; status != 0) {
    return Error{0, "fault_probe ended with status " + std::to_string(status)};
  }
  result.ratio = result.measured.median() / result.baseline.median();
  result.more["baseline_p99"] = result.baseline.p99();
  print(result);
  return {};
}

}  // namespace xenspan::bench
