#include "tests/bench/sharers_bench.h"

#include <sstream>

#include "tests/bench/process.h"
#include "tests/bench/samples.h"

namespace xenspan::bench {
namespace {

constexpr unsigned kPages = 32;  // a batch

// One domain with the probe in it.
class Probe {
 public:
  static Result<Probe> start(const Testbed& bed, const std::string& guests,
                             const std::string& without) {
    auto process =
        Process::start(bed.run(kSharersHosts, {guests + "/sharers_probe"}, {"--without", without}));
    if (!process) return process.error();
    Probe probe(std::move(*process));
    if (auto ready = probe.process_.read_line(); !ready) return ready.error();
    return probe;
  }
  Status batch(unsigned readers, Samples& us) {
    const std::string order = "write " + std::to_string(readers) + " " + std::to_string(kPages);
    if (const Status sent = process_.write_line(order); !sent) return sent;
    auto line = process_.read_line();
    if (!line) return line.error();
    std::istringstream words(*line);
    std::string kind;
    words >> kind;
    unsigned count = 0;
    for (double ns; words >> ns; ++count) us.add(ns / 1000);
    if (count == kPages) return {};
    return Error{0, "sharers_probe answered '" + line->substr(0, 60) + "'"};
  }
  Status end() {
    if (const Status sent = process_.write_line("quit"); !sent) return sent;
    const int status = process_.finish().status;
    if (status == 0) return {};
    return Error{0, "sharers_probe ended with status " + std::to_string(status)};
  }

 private:
  explicit Probe(Process process) : process_(std::move(process)) {}
  Process process_;
};

// With one reader and with many.
struct Pair {
  Samples one, many;
  Status add(Probe& probe) {
    if (const Status status = probe.batch(1, one); !status) return status;
    return probe.batch(kSharersReaders, many);
  }
  double ratio() const { return many.median() / one.median(); }
};

}  // namespace

Status measure_sharers(const Testbed& bed, const std::string& guests, unsigned rounds) {
  // Each write stands for itself: nothing is fetched or kept beside it.
  auto probe = Probe::start(bed, guests, "prefetch,migratory,read-mostly,returning");
  if (!probe) return probe.error();
  auto serial = Probe::start(bed, guests, "prefetch,migratory,read-mostly,returning,parallel");
  if (!serial) return serial.error();
  Pair warm_up, together, in_turn;
  for (unsigned round = 0; round <= rounds; ++round) {
    if (const Status status = (round == 0 ? warm_up : together).add(*probe); !status) return status;
    if (const Status status = (round == 0 ? warm_up : in_turn).add(*serial); !status) return status;
  }
  for (Probe* each : {&*probe, &*serial})
    if (const Status status = each->end(); !status) return status;
  Measurement result{.bench = "sharers",
                     .unit = "us",
                     .measured = together.many,
                     .baseline = together.one,
                     .ratio = together.ratio(),
                     .hosts = bed.names(kSharersHosts)};
  result.more["serial"] = in_turn.many.median();
  result.more["serial_baseline"] = in_turn.one.median();
  result.more["serial_ratio"] = in_turn.ratio();
  print(result);
  return {};
}

}  // namespace xenspan::bench
