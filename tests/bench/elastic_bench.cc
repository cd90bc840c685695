#include "tests/bench/elastic_bench.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "tests/bench/moments.h"
#include "tests/bench/pieces_output.h"
#include "tests/bench/process.h"
#include "tests/bench/samples.h"

namespace xenspan::bench {
namespace {

constexpr const char* kDomain = "bench-pieces";
constexpr const char* kThreads = "2";
constexpr const char* kSteps = "4000000";  // of a generator, for one piece: some milliseconds
constexpr double kSettle = 1;              // s: the program's own start is over
constexpr double kBefore = 2, kAfter = 4;  // s of measuring: on one host, on two
constexpr double kWindow = 0.5;            // s
constexpr double kEnough = 0.9;            // of the share of cores
constexpr const char* kLeastGap = "50";    // us; shorter ones are no pauses
constexpr double kLongestPause = 50'000;   // us

void wait_seconds(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

Result<Moment> change(const Testbed& bed, const std::string& xenspan, const std::string& command,
                      std::size_t host = 1) {
  Moment moment{seconds_now(), 0};
  auto process =
      Process::start({xenspan, "--socket", bed.socket(), command, kDomain, bed.hosts()[host].name});
  if (!process) return process.error();
  const Process::End end = process->finish();
  moment.end = seconds_now();
  if (end.status != 0) return Error{0, "`xenspan " + command + "` failed"};
  return moment;
}

using Point = PiecesOutput::Point;

// Pieces a second between two times.
double rate(const std::vector<Point>& points, double from, double to) {
  const auto at = [&points](double time) {
    return std::lower_bound(points.begin(), points.end(), time,
                            [](const Point& point, double t) { return point.time < t; });
  };
  const auto first = at(from);
  auto last = at(to);
  if (last == points.end() && last != points.begin()) --last;
  if (first == points.end() || last <= first) return 0;
  return (last->pieces - first->pieces) / (last->time - first->time);
}

struct Run {
  double before, after, left;  // pieces a second
  double reached;              // s from the request to enough of the share; negative: never
};

Result<Run> run_once(const Testbed& bed, const std::string& guests, const std::string& xenspan) {
  auto line = bed.run(2, {guests + "/pieces", kThreads, kSteps}, {"--name", kDomain});
  *(std::find(line.begin(), line.end(), "--hosts") + 1) = bed.hosts()[0].name;
  auto guest = Process::start(line);
  if (!guest) return guest.error();
  if (auto ready = guest->read_line(); !ready) return ready.error();
  wait_seconds(kSettle + kBefore);
  const auto added = change(bed, xenspan, "add-host");
  if (!added) return added.error();
  wait_seconds(kAfter);
  const auto drained = change(bed, xenspan, "drain");
  if (!drained) return drained.error();
  wait_seconds(kBefore);
  const double over = seconds_now();
  const Process::End end = guest->finish();
  const auto output = pieces_output(end);
  if (!output) return output.error();
  const auto& points = output->points;
  Run run{rate(points, added->start - kBefore, added->start),
          rate(points, added->start + 2, drained->start), rate(points, drained->end, over), -1};
  for (double from = added->start; run.reached < 0 && from + kWindow < drained->start; from += 0.1)
    if (rate(points, from, from + kWindow) >= kEnough * 2 * run.before)
      run.reached = from - added->start;
  return run;
}

}  // namespace

Status measure_elastic(const Testbed& bed, const std::string& guests, const std::string& xenspan,
                       unsigned runs) {
  Measurement add{
      .bench = "elastic.add", .unit = "1/s", .measured = {}, .baseline = {}, .hosts = bed.names(2)};
  Measurement drain{.bench = "elastic.drain",
                    .unit = "1/s",
                    .measured = {},
                    .baseline = {},
                    .hosts = bed.names(2)};
  Samples reached;
  unsigned never = 0;
  for (unsigned i = 0; i < runs; i++) {
    const auto run = run_once(bed, guests, xenspan);
    if (!run) return run.error();
    add.measured.add(run->after);
    add.baseline.add(2 * run->before);
    drain.measured.add(run->left);
    drain.baseline.add(run->before);
    if (run->reached < 0)
      ++never;
    else
      reached.add(run->reached);
  }
  add.ratio = add.measured.median() / add.baseline.median();
  add.more["reached_s"] = reached.size() > 0 ? reached.median() : -1;
  add.more["never_reached"] = never;
  drain.ratio = drain.measured.median() / drain.baseline.median();
  print(add);
  print(drain);
  return {};
}

Status measure_elastic_pauses(const Testbed& bed, const std::string& guests,
                              const std::string& xenspan, unsigned runs) {
  auto line = bed.run(2, {guests + "/pauses", kLeastGap, "2"}, {"--name", kDomain});
  *(std::find(line.begin(), line.end(), "--vcpus") + 1) = "3";
  auto guest = Process::start(line);
  if (!guest) return guest.error();
  if (auto ready = guest->read_line(); !ready) return ready.error();
  std::vector<Moment> quiet, adds, drains;
  for (unsigned i = 0; i < runs; i++) {
    wait_seconds(kSettle / 2);
    const double start = seconds_now();
    wait_seconds(kSettle / 2);
    quiet.push_back({start, seconds_now()});
    const auto added = change(bed, xenspan, "add-host", 2);
    if (!added) return added.error();
    adds.push_back(*added);
    wait_seconds(kSettle / 2);
    const auto drained = change(bed, xenspan, "drain", 2);
    if (!drained) return drained.error();
    drains.push_back(*drained);
  }
  const Process::End end = guest->finish();
  if (end.status != 0) return Error{0, "pauses ended with status " + std::to_string(end.status)};
  for (const auto& [name, moments] :
       {std::pair{"elastic.add.pause", &adds}, {"elastic.drain.pause", &drains}}) {
    Measurement result{
        .bench = name, .unit = "us", .measured = {}, .baseline = {}, .hosts = bed.names(3)};
    result.measured.add(longest_gaps(end.output, *moments));
    result.baseline.add(longest_gaps(end.output, quiet));
    result.ratio = result.measured.median() / kLongestPause;
    result.more["limit"] = kLongestPause;
    print(result);
  }
  return {};
}

}  // namespace xenspan::bench
