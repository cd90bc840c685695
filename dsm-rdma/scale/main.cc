// xenspan-sim: see man/xenspan-sim.1.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "config.h"
#include "dsm-rdma/ivy/page_state.h"
#include "dsm-rdma/scale/report.h"

namespace {

using namespace xenspan::dsm;
using namespace xenspan::dsm::scale;

struct Arguments {
  Options options;
  std::vector<unsigned> hosts{2, 8, 64, 256, 1024};
  std::vector<std::string> patterns{"all"};
  double latency_us = 0, send_us = 0, receive_us = 0, fault_us = 0, think_us = 0;
  std::string plot;
  bool json = false;
};

std::vector<Pattern> patterns_of(const std::vector<std::string>& names) {
  std::vector<Pattern> patterns;
  for (Pattern pattern : kPatterns) {
    for (const std::string& name : names) {
      if (name != "all" && name != name_of(pattern)) continue;
      patterns.push_back(pattern);
      break;
    }
  }
  return patterns;
}

double us(Time ns) { return static_cast<double>(ns) / 1000; }
Time ns(double us) { return static_cast<Time>(us * 1000 + 0.5); }

int write_plot(const std::string& path, const std::vector<Result>& results) {
  std::ofstream file(path);
  file << plot_of(results);
  file.close();
  if (file) return EXIT_SUCCESS;
  fmt::print(stderr, "xenspan-sim: cannot write {}: {}: name a file that can be written\n", path,
             std::strerror(errno));
  return EXIT_FAILURE;
}

int run(const Arguments& arguments) {
  std::vector<Result> results;
  for (Pattern pattern : patterns_of(arguments.patterns)) {
    for (unsigned hosts : arguments.hosts) {
      Options options = arguments.options;
      options.pattern = pattern;
      options.hosts = hosts;
      results.push_back({options, simulate(options), memory_of(hosts, options.wide)});
      const Result& result = results.back();
      if (!result.figures.violation.empty()) {
        fmt::print(stderr, "xenspan-sim: {} with {} hosts, seed {}: the protocol is violated: {}\n",
                   name_of(pattern), hosts, options.seed, result.figures.violation);
        return EXIT_FAILURE;
      }
      if (arguments.json) {
        fmt::print("{}", json_of(result));
        std::fflush(stdout);
      }
    }
  }
  if (!arguments.json) {
    fmt::print("{}", table_of(results));
    fmt::print("a round trip (64 bytes there, 4160 back): {:.2f} us; seed {}\n",
               us(arguments.options.costs.round_trip_ns()), arguments.options.seed);
  }
  return arguments.plot.empty() ? EXIT_SUCCESS : write_plot(arguments.plot, results);
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  Options& options = arguments.options;
  Costs& costs = options.costs;
  arguments.latency_us = us(costs.latency_ns);
  arguments.send_us = us(costs.send_ns);
  arguments.receive_us = us(costs.receive_ns);
  arguments.fault_us = us(costs.fault_ns);
  arguments.think_us = us(options.think_ns);
  std::vector<std::string> names{"all"};
  for (Pattern pattern : kPatterns) names.emplace_back(name_of(pattern));

  CLI::App app(
      "Runs the coherence protocol's own state machine on a modelled network of 2 to 1024 "
      "hosts; prints what a fault costs.",
      "xenspan-sim");
  app.option_defaults()->always_capture_default();
  app.add_option("--hosts", arguments.hosts, "Numbers of hosts, a run for each")
      ->delimiter(',')
      ->check(CLI::Range(2u, ivy::WidePageState::kHosts));
  app.add_option("--pattern", arguments.patterns, "How the hosts share memory")
      ->delimiter(',')
      ->check(CLI::IsMember(names));
  app.add_option("--faults", options.faults, "Faults to measure in a run")
      ->check(CLI::Range(100, 10'000'000));
  app.add_option("--seed", options.seed, "Of everything drawn by lot");
  app.add_option("--latency", arguments.latency_us, "One way, us")->check(CLI::Range(0.0, 1e6));
  app.add_option("--bandwidth", costs.gbit, "Of a host's link, Gbit/s")
      ->check(CLI::Range(0.001, 1e5));
  app.add_option("--send", arguments.send_us, "Processor time to send a message, us")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--receive", arguments.receive_us, "Processor time to receive a message, us")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--fault", arguments.fault_us, "Processor time of a fault, mapping included, us")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--think", arguments.think_us, "Time between two accesses of a vCPU, us")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--jitter", costs.jitter, "Added to the latency by lot, at most this part of it")
      ->check(CLI::Range(0.0, 100.0));
  app.add_flag("--wide", options.wide, "Use the machine for more than 64 hosts for fewer too");
  app.add_option("--plot", arguments.plot, "Draw the results into this file (SVG)");
  app.add_flag("--json", arguments.json, "Print one JSON object a run");
  app.set_version_flag("--version", "xenspan-sim " PACKAGE_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "xenspan-sim: {}: see xenspan-sim --help\n", error.what());
    return 2;
  }
  costs.latency_ns = ns(arguments.latency_us);
  costs.send_ns = ns(arguments.send_us);
  costs.receive_ns = ns(arguments.receive_us);
  costs.fault_ns = ns(arguments.fault_us);
  options.think_ns = ns(arguments.think_us);
  return run(arguments);
}
