#include "tests/bench/prefetch_bench.h"

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
  Samples without, stream, fresh;
  const auto walk = [&](const char* prefetch, Samples& rates, Samples* first) -> Status {
    auto answer = run_guest(bed.run(2, guest, {"--prefetch", prefetch}), std::vector<int>{});
    if (!answer) return answer.error();
    const double megabytes = static_cast<double>(bytes) / kMegabyte;
    rates.add(megabytes / answer->seconds);
    if (first != nullptr) first->add(megabytes / answer->number("fresh"));
    return {};
  };
  for (unsigned i = 0; i < runs; i++) {
    if (const Status walked = walk("15", result.measured, &fresh); !walked) return walked;
    auto rate = stream_rate(*raw, bytes);
    if (!rate) return rate.error();
    stream.add(*rate);
    auto iperf = iperf_rate(home, other, mib);
    if (!iperf) return iperf.error();
    result.baseline.add(*iperf);
  }
  for (unsigned i = 0; i < (runs + 1) / 2; i++) {
    if (const Status walked = walk("off", without, nullptr); !walked) return walked;
  }
  result.ratio = result.measured.median() / result.baseline.median();
  result.more["fresh"] = fresh.median();
  result.more["fresh_ratio"] = fresh.median() / result.baseline.median();
  result.more["without_prefetch"] = without.median();
  result.more["tcp_stream"] = stream.median();
  print(result);
  return {};
}

}  // namespace xenspan::bench
