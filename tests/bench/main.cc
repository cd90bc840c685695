// xenspan-bench: measures and prints one JSON object a line. man/xenspan-bench.1 explains each
// member.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <optional>

#include "tests/bench/balance_bench.h"
#include "tests/bench/contend_bench.h"
#include "tests/bench/elastic_bench.h"
#include "tests/bench/fault_bench.h"
#include "tests/bench/migrate_bench.h"
#include "tests/bench/prefetch_bench.h"
#include "tests/bench/sharers_bench.h"
#include "tests/bench/speedup_bench.h"
#include "tests/bench/worth_bench.h"
#include "tests/bench/xen_fault_bench.h"

namespace xenspan::bench {
namespace {

struct Options {
  bool list = false, quick = false;
  std::vector<std::string> only;
  unsigned runs = 0;
  std::string prefix = "xsbench", xenspan, guests, testguest;
};

// The test bed that a benchmark is for.
struct Bed {
  unsigned hosts = 2;
  std::vector<std::string> options{};  // of `testbed up`

  friend bool operator==(const Bed&, const Bed&) = default;
};

struct Bench {
  std::string name;
  std::function<Status(const Testbed&, const Options&)> measure;
  Bed bed{};
  std::function<Status(const Options&)> alone{};  // instead: on this machine, without a test bed
};

unsigned runs_or(const Options& options, unsigned full, unsigned quick) {
  return options.runs > 0 ? options.runs : options.quick ? quick : full;
}

std::vector<Bench> all_benches() {
  std::vector<Bench> all;
  for (const FaultBench& bench : fault_benches()) {
    all.push_back({bench.name, [&bench](const Testbed& bed, const Options& options) {
                     return measure(bench, bed, options.guests, runs_or(options, 20, 3));
                   }});
  }
  all.push_back({"prefetch.sequential", [](const Testbed& bed, const Options& options) {
                   return measure_prefetch(bed, options.guests, runs_or(options, 11, 2),
                                           options.quick ? 8 : 64);
                 }});
  all.push_back({"elastic.migrate.vcpu", [](const Testbed& bed, const Options& options) {
                   return measure_migration(bed, options.guests, options.xenspan,
                                            runs_or(options, 50, 5));
                 }});
  all.push_back({"elastic.hosts", [](const Testbed& bed, const Options& options) {
                   return measure_elastic(bed, options.guests, options.xenspan,
                                          runs_or(options, 5, 1));
                 }});
  all.push_back({"elastic.pauses",
                 [](const Testbed& bed, const Options& options) {
                   return measure_elastic_pauses(bed, options.guests, options.xenspan,
                                                 runs_or(options, 10, 2));
                 },
                 {3}});
  all.push_back({"balance", [](const Testbed& bed, const Options& options) {
                   return measure_balance(bed, options.guests, runs_or(options, 3, 1),
                                          options.quick);
                 }});
  const auto speedup_options = [](const Options& options) {
    return SpeedupOptions{options.guests, runs_or(options, 9, 2), options.quick};
  };
  for (const Program& program : programs()) {
    all.push_back({std::string("speedup.") + program.name,
                   [&program, speedup_options](const Testbed& bed, const Options& options) {
                     return measure_speedup(program, bed, speedup_options(options));
                   }});
  }
  for (const Program& program : programs()) {
    all.push_back({std::string("onehost.") + program.name,
                   [&program, speedup_options](const Testbed& bed, const Options& options) {
                     return measure_one_host(program, bed, speedup_options(options));
                   }});
  }
  for (const WorthBench& bench : worth_benches()) {
    all.push_back({bench.name, [&bench](const Testbed& bed, const Options& options) {
                     return measure(bench, bed, options.guests, runs_or(options, 5, 2));
                   }});
  }
  for (const ContendBench& bench : contend_benches()) {
    all.push_back({bench.name, [&bench](const Testbed& bed, const Options& options) {
                     return measure(bench, bed, options.guests, runs_or(options, 5, 2),
                                    options.quick ? 0.2 : 1);
                   }});
  }
  all.push_back({"sharers",
                 [](const Testbed& bed, const Options& options) {
                   return measure_sharers(bed, options.guests, runs_or(options, 10, 2));
                 },
                 {kSharersHosts, {"--delay", kSharersDelay}}});
  all.push_back({"xen.fault", nullptr, {}, [](const Options& options) {
                   return measure_xen_fault({options.testguest, runs_or(options, 200, 20)});
                 }});
  return all;
}

// Set by SIGINT and SIGTERM: the running benchmark fails, no other one starts, and the test bed is
// taken down.
volatile std::sig_atomic_t interrupted = 0;

void end_early_on_signals() {
  struct sigaction action {};
  action.sa_handler = [](int number) { interrupted = number; };
  for (const int number : {SIGINT, SIGTERM}) sigaction(number, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

bool wanted(const std::string& name, const std::vector<std::string>& only) {
  if (only.empty()) return true;
  for (const std::string& word : only) {
    if (name == word || name.starts_with(word + ".")) return true;
  }
  return false;
}

int failed(const Bench& bench, const Status& status) {
  if (status) return 0;
  std::cerr << "xenspan-bench: " << bench.name << ": " << status.error().message << '\n';
  return 1;
}

int run(const Options& options) {
  std::vector<Bench> chosen;
  for (Bench& bench : all_benches()) {
    if (wanted(bench.name, options.only)) chosen.push_back(std::move(bench));
  }
  if (chosen.empty()) {
    std::cerr << "xenspan-bench: no benchmark of that name: see `xenspan-bench --list`\n";
    return 2;
  }
  if (options.list) {
    for (const Bench& bench : chosen) std::cout << bench.name << '\n';
    return 0;
  }
  end_early_on_signals();
  std::optional<Testbed> bed;
  Bed shape;
  int failures = 0;
  for (const Bench& bench : chosen) {
    if (interrupted != 0) return 128 + interrupted;
    if (bench.alone) {
      failures += failed(bench, bench.alone(options));
      continue;
    }
    if (!bed || bench.bed != shape) {
      bed.reset();
      shape = bench.bed;
      auto made = Testbed::up(options.xenspan, options.prefix, shape.hosts, shape.options);
      if (!made) {
        std::cerr << "xenspan-bench: " << made.error().message << '\n';
        return 1;
      }
      bed.emplace(std::move(*made));
    }
    failures += failed(bench, bench.measure(*bed, options));
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace

void say_skipped(const std::string& why) {
  std::cerr << "xenspan-bench: xen.fault: skipped: " << why << '\n';
}

}  // namespace xenspan::bench

int main(int argc, char** argv) {
  using namespace xenspan::bench;
  Options options;
  // In a build tree everything lies at a known place beside this program.
  std::error_code ignored;
  const std::filesystem::path here =
      std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
  options.guests = (here / "guests").string();
  options.testguest =
      (here / "../../frontend-drivers/testguest/testguest.elf").lexically_normal().string();
  const char* const named = std::getenv("XENSPAN");
  options.xenspan =
      named != nullptr ? named : (here / "../../dom0-daemon/xenspan").lexically_normal().string();

  CLI::App app("Measures page faults and programs across hosts; prints one JSON object a line.",
               "xenspan-bench");
  app.add_flag("--list", options.list, "print the names of the benchmarks and stop");
  app.add_option("--only", options.only,
                 "only this benchmark, or all below this name; may be repeated");
  app.add_option("--runs", options.runs,
                 "rounds of each benchmark (default: 20 for faults, 9 for programs)");
  app.add_option("--testbed", options.prefix, "prefix of the test bed's names")
      ->capture_default_str();
  app.add_flag("--quick", options.quick,
               "small inputs and few rounds: to see that it works, not to compare");
  app.add_option("--xenspan", options.xenspan,
                 "the command to use (default: $XENSPAN, or beside the build)");
  app.add_option("--guests", options.guests, "folder of the guest programs");
  app.add_option("--testguest", options.testguest,
                 "the guest of xen.fault, which runs in a Xen Dom0 only");
  CLI11_PARSE(app, argc, argv);
  return run(options);
}
