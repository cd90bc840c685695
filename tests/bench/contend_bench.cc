#include "tests/bench/contend_bench.h"

#include <algorithm>

#include "tests/bench/guest_run.h"
#include "tests/bench/samples.h"

namespace xenspan::bench {
namespace {

struct Side {
  Samples rate;   // of both hosts together
  Samples share;  // the slower one's operations divided by the faster one's
};

Status add(Side& side, const Testbed& bed, const std::vector<std::string>& guest,
           const std::vector<std::string>& options) {
  auto answer = run_guest(bed.run(2, guest, options), {});
  if (!answer) return answer.error();
  const double first = answer->number("first"), second = answer->number("second");
  if (first <= 0 || second <= 0) return Error{0, "contend: one host has not advanced at all"};
  side.rate.add((first + second) / answer->seconds);
  side.share.add(std::min(first, second) / std::max(first, second));
  return {};
}

}  // namespace

const std::vector<ContendBench>& contend_benches() {
  static const std::vector<ContendBench> benches = {
      {"contend.counter", "counter"},
      {"contend.sharing", "sharing"},
      {"contend.mutex", "mutex"},
      {"contend.flag", "flag"},
  };
  return benches;
}

Status measure(const ContendBench& bench, const Testbed& bed, const std::string& guests,
               unsigned runs, double seconds) {
  const std::vector<std::string> guest = {guests + "/contend", bench.what, std::to_string(seconds)};
  Side with, without;
  for (unsigned i = 0; i < runs; ++i) {
    if (Status status = add(with, bed, guest, {}); !status) return status;
    if (Status status = add(without, bed, guest, {"--without", "hold"}); !status) return status;
  }
  Measurement result{.bench = bench.name,
                     .unit = "op/s",
                     .measured = with.rate,
                     .baseline = without.rate,
                     .ratio = with.rate.median() / without.rate.median(),
                     .hosts = bed.names(2)};
  result.more["slower_host"] = with.share.median();
  result.more["slower_host_min"] = with.share.quantile(0);
  result.more["slower_host_without_hold"] = without.share.median();
  print(result);
  return {};
}

}  // namespace xenspan::bench
