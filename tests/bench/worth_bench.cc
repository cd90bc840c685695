#include "tests/bench/worth_bench.h"

#include "tests/bench/guest_run.h"
#include "tests/bench/samples.h"

namespace xenspan::bench {

const std::vector<WorthBench>& worth_benches() {
  static const std::vector<WorthBench> benches = {
      {"worth.prefetch", "prefetch", {"walk", "32"}, ""},
      {"worth.batching", "batching", {"walk", "32"}, ""},
      {"worth.migratory", "migratory", {"patterns", "migratory"}, "prefetch"},
      {"worth.read-mostly", "read-mostly", {"patterns", "read-mostly"}, "prefetch"},
      {"worth.returning", "returning", {"grid", "2050", "100"}, ""},
      {"worth.zero", "zero", {"patterns", "zero"}, ""},
  };
  return benches;
}

Status measure(const WorthBench& bench, const Testbed& bed, const std::string& guests,
               unsigned runs) {
  std::vector<std::string> guest = bench.guest;
  guest[0] = guests + "/" + guest[0];
  const std::string always = bench.always_without;
  const std::string without = always.empty() ? bench.feature : always + "," + bench.feature;
  Samples with_seconds, without_seconds;
  std::string checksum;
  for (unsigned i = 0; i < runs; ++i) {
    for (const bool feature : {true, false}) {
      std::vector<std::string> options;
      if (!feature || !always.empty()) options = {"--without", feature ? always : without};
      auto answer = run_guest(bed.run(2, guest, options), {});
      if (!answer) return answer.error();
      if (checksum.empty()) checksum = answer->checksum;
      if (answer->checksum != checksum)
        return Error{0, guest[0] + ": the result depends on " + bench.feature};
      (feature ? with_seconds : without_seconds).add(answer->seconds);
    }
  }
  Measurement result{.bench = bench.name,
                     .unit = "s",
                     .measured = with_seconds,
                     .baseline = without_seconds,
                     .ratio = without_seconds.median() / with_seconds.median(),
                     .hosts = bed.names(2)};
  print(result);
  return {};
}

}  // namespace xenspan::bench
