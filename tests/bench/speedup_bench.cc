#include "tests/bench/speedup_bench.h"

#include <utility>

#include "tests/bench/guest_run.h"
#include "tests/bench/samples.h"

namespace xenspan::bench {
namespace {

std::vector<std::string> guest_line(const Program& program, const SpeedupOptions& options) {
  const std::string name = program.name;
  std::vector<std::string> line{options.guests + "/" + name.substr(0, name.find('.'))};
  const auto& arguments = options.quick ? program.quick : program.full;
  line.insert(line.end(), arguments.begin(), arguments.end());
  return line;
}

// Runs that are compared with each other take turns, there and back, so that the machine's own
// changes of speed meet all of them.
class Turns {
 public:
  struct Side {
    std::vector<std::string> argv;
    std::vector<int> cores;  // empty: the daemon places it
    Samples seconds;
  };
  explicit Turns(std::vector<Side> sides) : sides_(std::move(sides)) {}

  Status take(unsigned runs) {
    for (unsigned i = 0; i < runs; i++) {
      for (std::size_t turn = 0; turn < sides_.size(); ++turn) {
        Side& side = sides_[i % 2 == 0 ? turn : sides_.size() - 1 - turn];
        auto answer = run_guest(side.argv, side.cores);
        if (!answer) return answer.error();
        side.seconds.add(answer->seconds);
        if (checksum_.empty()) checksum_ = answer->checksum;
        if (answer->checksum != checksum_) {
          return Error{0, side.argv.back() + ": wrong result: checksum " + answer->checksum +
                              ", natively " + checksum_};
        }
      }
    }
    return {};
  }
  const Samples& operator[](std::size_t side) const { return sides_[side].seconds; }

 private:
  std::vector<Side> sides_;
  std::string checksum_;
};

}  // namespace

const std::vector<Program>& programs() {
  static const std::vector<Program> all = {
      {"fib", {"8", "43"}, {"8", "36"}},
      {"matmul", {"1024", "10"}, {"512", "2"}, true},
      {"matmul.once", {"1024", "1"}, {"512", "1"}, true},
      {"matmul.tiled", {"1024", "10", "tiled"}, {"512", "2", "tiled"}, false},
      {"nbody", {"8192", "20"}, {"2048", "4"}},
      {"grid", {"2050", "600"}, {"514", "40"}},
  };
  return all;
}

Status measure_speedup(const Program& program, const Testbed& bed, const SpeedupOptions& options) {
  const auto guest = guest_line(program, options);
  const int first = bed.hosts()[0].core, second = bed.hosts()[1].core;
  std::vector<Turns::Side> sides = {
      {guest, {first, second}, {}}, {bed.run(2, guest), {}, {}}, {guest, {first}, {}}};
  if (program.apart) {
    auto apart = guest;
    apart.push_back("apart");
    sides.push_back({apart, {first, second}, {}});
  }
  Turns turns(std::move(sides));
  if (const Status status = turns.take(options.runs); !status) return status;
  const Samples &native = turns[0], &spanning = turns[1], &single = turns[2];
  Measurement result{.bench = std::string("speedup.") + program.name,
                     .unit = "s",
                     .measured = spanning,
                     .baseline = native,
                     .hosts = bed.names(2)};
  result.ratio = ratios(native, spanning).median();
  result.more["speedup_vs_1"] = ratios(single, spanning).median();
  result.more["native_speedup_vs_1"] = ratios(single, native).median();
  if (program.apart) result.more["native_apart_ratio"] = ratios(turns[3], spanning).median();
  print(result);
  return {};
}

Status measure_one_host(const Program& program, const Testbed& bed, const SpeedupOptions& options) {
  const auto guest = guest_line(program, options);
  Turns turns({{guest, {bed.hosts()[0].core}, {}}, {bed.run(1, guest), {}, {}}});
  if (const Status status = turns.take(options.runs); !status) return status;
  Measurement result{.bench = std::string("onehost.") + program.name,
                     .unit = "s",
                     .measured = turns[1],
                     .baseline = turns[0],
                     .hosts = bed.names(1)};
  result.ratio = ratios(result.measured, result.baseline).median();
  print(result);
  return {};
}

}  // namespace xenspan::bench
