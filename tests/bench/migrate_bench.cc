#include "tests/bench/migrate_bench.h"

#include <chrono>
#include <thread>

#include "tests/bench/moments.h"
#include "tests/bench/process.h"
#include "tests/bench/raw_tcp.h"
#include "tests/bench/samples.h"

namespace xenspan::bench {
namespace {

constexpr std::size_t kRoundTrips = 500;
constexpr const char* kLeastGap = "50";  // us; shorter ones are no pauses
constexpr double kAllowance = 2000;      // us: median <= 5 x round trip + 2 ms

Result<Moment> move_to(const Testbed& bed, const std::string& xenspan, const std::string& domain,
                       const std::string& host) {
  Moment moment{seconds_now(), 0};
  auto command = Process::start({xenspan, "--socket", bed.socket(), "migrate", domain, "1", host});
  if (!command) return command.error();
  const Process::End end = command->finish();
  moment.end = seconds_now();
  if (end.status != 0 || end.output.find(" threads, ") == std::string::npos)
    return Error{0, "`xenspan migrate` did not move the vCPU: " + end.output.substr(0, 100)};
  return moment;
}

}  // namespace

Status measure_migration(const Testbed& bed, const std::string& guests, const std::string& xenspan,
                         unsigned runs) {
  const BedHost &home = bed.hosts()[0], &other = bed.hosts()[1];
  auto raw = RawTcp::start({home.netns, home.address, home.core},
                           {other.netns, other.address, other.core}, {});
  if (!raw) return raw.error();
  Measurement result{
      .bench = "migrate.vcpu", .unit = "us", .measured = {}, .baseline = {}, .hosts = bed.names(2)};
  // Before the guest runs: its thread never leaves a core to a round trip of ordinary processes.
  auto trips = raw->round_trips(kRoundTrips, 64);
  if (!trips) return trips.error();
  for (const double ns : *trips) result.baseline.add(ns / 1000);
  const std::string domain = "bench-pauses";
  auto guest = Process::start(bed.run(2, {guests + "/pauses", kLeastGap}, {"--name", domain}));
  if (!guest) return guest.error();
  if (auto ready = guest->read_line(); !ready) return ready.error();
  std::vector<Moment> moves;
  for (unsigned i = 0; i < runs; i++) {
    // Away from the home and back; between two moves the thread runs, with its pages around it.
    for (const std::string& host : {home.name, other.name}) {
      auto move = move_to(bed, xenspan, domain, host);
      if (!move) return move.error();
      moves.push_back(*move);
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
    }
  }
  const Process::End end = guest->finish();
  if (end.status != 0) return Error{0, "pauses ended with status " + std::to_string(end.status)};
  result.measured.add(longest_gaps(end.output, moves));
  result.ratio = result.measured.median() / result.baseline.median();
  const double limit = 5 * result.baseline.median() + kAllowance;
  result.more["limit"] = limit;
  print(result);
  return {};
}

}  // namespace xenspan::bench
