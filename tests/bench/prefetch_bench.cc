#include "tests/bench/prefetch_bench.h"

#include <sys/mman.h>

#include <cerrno>

#include "tests/bench/guest_run.h"
#include "tests/bench/iperf.h"
#include "tests/bench/raw_tcp.h"
#include "tests/bench/samples.h"

namespace xenspan::bench {
namespace {

constexpr double kMegabyte = 1e6;

Result<double> stream_rate(RawTcp& raw, std::size_t bytes) {
  auto trip = raw.round_trips(1, bytes);
  if (!trip) return trip.error();
  return static_cast<double>(bytes) / kMegabyte / (trip->front() / 1e9);
}

// A hypervisor may take unused memory away within seconds (free page reporting), and then it is the
// hypervisor's time that a program's first touch takes: as much as is wanted is had from it before.
Status have_memory(std::size_t bytes) {
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) return system_error(errno, "no memory for the benchmark");
  ::munmap(memory, bytes);
  return {};
}

}  // namespace

Status measure_prefetch(const Testbed& bed, const std::string& guests, unsigned runs,
                        unsigned mib) {
  const std::size_t bytes = std::size_t{mib} << 20;
  const std::vector<std::string> guest = {guests + "/walk", std::to_string(mib)};
  const BedHost &home = bed.hosts()[0], &other = bed.hosts()[1];
  auto raw = RawTcp::start({home.netns, home.address, home.core},
                           {other.netns, other.address, other.core}, {});
  if (!raw) return raw.error();
  Measurement result{.bench = "prefetch.sequential",
                     .unit = "MB/s",
                     .measured = {},
                     .baseline = {},
                     .hosts = bed.names(2)};
  Samples without, stream;
  const auto walk = [&](const char* prefetch) -> Result<double> {
    auto answer = run_guest(bed.run(2, guest, {"--prefetch", prefetch}), std::vector<int>{});
    if (!answer) return answer.error();
    return static_cast<double>(bytes) / kMegabyte / answer->seconds;
  };
  for (unsigned i = 0; i < runs; i++) {
    if (const Status status = have_memory(3 * bytes); !status) return status;
    auto walked = walk("15");
    if (!walked) return walked.error();
    result.measured.add(*walked);
    auto rate = stream_rate(*raw, bytes);
    if (!rate) return rate.error();
    stream.add(*rate);
    auto iperf = iperf_rate(home, other, mib);
    if (!iperf) return iperf.error();
    result.baseline.add(*iperf);
  }
  for (unsigned i = 0; i < (runs + 1) / 2; i++) {
    auto walked = walk("off");
    if (!walked) return walked.error();
    without.add(*walked);
  }
  result.ratio = result.measured.median() / result.baseline.median();
  result.more["without_prefetch"] = without.median();
  result.more["tcp_stream"] = stream.median();
  print(result);
  return {};
}

}  // namespace xenspan::bench
