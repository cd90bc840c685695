#include "tests/bench/balance_bench.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "tests/bench/guest_run.h"
#include "tests/bench/pieces_output.h"
#include "tests/bench/process.h"
#include "tests/bench/samples.h"

namespace xenspan::bench {
namespace {

constexpr unsigned kOthers = 7;  // programs beside one vCPU: it gets an eighth of the core
constexpr double kPieces = 4;    // s of taking pieces
constexpr const char* kSteps = "1000000";  // of a generator, for one piece: a millisecond or two

// Programs that keep a core busy while this lives. Each is a session of its own: where the kernel
// gives sessions equal shares (sched_autogroup), all of one session would count as one.
class OtherWork {
 public:
  Status start(int core) {
    for (unsigned i = 0; i < kOthers; ++i) {
      auto loop =
          Process::start({"setsid", "timeout", "600", "sh", "-c", "while :; do :; done"}, {core});
      if (!loop) return loop.error();
      loops_.push_back(std::move(*loop));
    }
    return {};
  }

 private:
  std::vector<Process> loops_;
};

// nbody gives each thread the same share and waits for the slowest in every step.
Status measure_equal_shares(const Testbed& bed, const std::string& guests, unsigned runs,
                            bool quick) {
  const std::vector<std::string> guest{guests + "/nbody", quick ? "2048" : "8192",
                                       quick ? "8" : "20"};
  Measurement result{.bench = "balance.static",
                     .unit = "s",
                     .measured = {},
                     .baseline = {},
                     .hosts = bed.names(2)};
  Samples quiet;
  std::string checksum;
  const auto take = [&](const char* policy, Samples& seconds) -> Status {
    const auto answer = run_guest(bed.run(2, guest, {"--policy", policy}), {});
    if (!answer) return answer.error();
    if (checksum.empty()) checksum = answer->checksum;
    if (answer->checksum != checksum) return Error{0, "wrong result: checksum " + answer->checksum};
    seconds.add(answer->seconds);
    return {};
  };
  for (unsigned i = 0; i < runs; ++i) {
    if (const Status status = take("spread", quiet); !status) return status;
    OtherWork others;
    if (const Status status = others.start(bed.hosts()[1].core); !status) return status;
    if (const Status status = take("load", result.measured); !status) return status;
    if (const Status status = take("spread", result.baseline); !status) return status;
  }
  result.ratio = result.baseline.median() / result.measured.median();
  result.more["alone"] = quiet.median();
  print(result);
  return {};
}

struct Pieces {
  double rate = 0;  // 1/s
  double slow = 0;  // part of them done by the thread on the second host
};

Result<Pieces> take_pieces(const Testbed& bed, const std::string& guests) {
  auto guest = Process::start(bed.run(2, {guests + "/pieces", "2", kSteps}));
  if (!guest) return guest.error();
  if (auto ready = guest->read_line(); !ready) return ready.error();
  std::this_thread::sleep_for(std::chrono::duration<double>(kPieces));
  const Process::End end = guest->finish();
  const auto output = pieces_output(end);
  if (!output) return output.error();
  const auto& points = output->points;
  const auto& by = output->by;
  if (points.empty() || points.back().time <= points.front().time || by.size() != 2)
    return Error{0, "pieces printed too little: " + end.output.substr(0, 100)};
  return Pieces{
      (points.back().pieces - points.front().pieces) / (points.back().time - points.front().time),
      std::min(by[0], by[1]) / (by[0] + by[1])};
}

Status measure_pieces(const Testbed& bed, const std::string& guests, unsigned runs) {
  Measurement result{.bench = "balance.dynamic",
                     .unit = "1/s",
                     .measured = {},
                     .baseline = {},
                     .hosts = bed.names(2)};
  Samples slow;
  for (unsigned i = 0; i < runs; ++i) {
    const auto quiet = take_pieces(bed, guests);
    if (!quiet) return quiet.error();
    OtherWork others;
    if (const Status status = others.start(bed.hosts()[1].core); !status) return status;
    const auto busy = take_pieces(bed, guests);
    if (!busy) return busy.error();
    result.baseline.add(quiet->rate);
    result.measured.add(busy->rate);
    slow.add(busy->slow);
  }
  result.ratio = result.measured.median() / result.baseline.median();
  result.more["slow_host_did"] = slow.median();
  print(result);
  return {};
}

}  // namespace

Status measure_balance(const Testbed& bed, const std::string& guests, unsigned runs, bool quick) {
  const Status status = measure_pieces(bed, guests, runs);
  return status ? measure_equal_shares(bed, guests, runs, quick) : status;
}

}  // namespace xenspan::bench
