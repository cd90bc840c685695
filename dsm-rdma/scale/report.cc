#include "dsm-rdma/scale/report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace xenspan::dsm::scale {
namespace {

using Json = nlohmann::ordered_json;

double rounded(double value) {
  return static_cast<double>(static_cast<long>(value * 1000 + 0.5)) / 1000;
}

Json json_of(const FaultFigures& figures) {
  return {{"faults", figures.faults},
          {"messages", rounded(figures.messages)},
          {"messages_most", figures.messages_most},
          {"bytes", rounded(figures.bytes)},
          {"round_trips_median", rounded(figures.trips_median)},
          {"round_trips_mean", rounded(figures.trips_mean)},
          {"round_trips_p99", rounded(figures.trips_p99)}};
}

}  // namespace

std::string table_of(const std::vector<Result>& results) {
  std::string text = fmt::format("{:<12}{:>6}{:>10}  {:>22}{:>8}  {:>31}  {:>14}\n", "", "", "",
                                 "messages a fault", "", "latency in round trips", "memory");
  text += fmt::format("{:<12}{:>6}{:>10}  {:>6}{:>8}{:>8}{:>8}  {:>7}{:>8}{:>8}{:>8}  {:>7}{:>7}\n",
                      "pattern", "hosts", "faults", "read", "write", "all", "most", "read", "write",
                      "all", "99 %", "B/page", "early");
  for (const Result& result : results) {
    const Figures& f = result.figures;
    text += fmt::format(
        "{:<12}{:>6}{:>10}  {:>6.2f}{:>8.2f}{:>8.2f}{:>8.0f}  {:>7.2f}{:>8.2f}{:>8.2f}{:>8.2f}  "
        "{:>7.3f}{:>7}\n",
        name_of(result.options.pattern), result.options.hosts, f.all.faults, f.reads.messages,
        f.writes.messages, f.all.messages, f.all.messages_most, f.reads.trips_median,
        f.writes.trips_median, f.all.trips_median, f.all.trips_p99, result.memory.page(),
        f.parked_most);
  }
  return text;
}

std::string json_of(const Result& result) {
  const Options& options = result.options;
  const Figures& figures = result.figures;
  const Memory& memory = result.memory;
  return Json{{"pattern", name_of(options.pattern)},
              {"hosts", options.hosts},
              {"seed", options.seed},
              {"round_trip_ns", options.costs.round_trip_ns()},
              {"all", json_of(figures.all)},
              {"reads", json_of(figures.reads)},
              {"writes", json_of(figures.writes)},
              {"run",
               {{"accesses", figures.accesses},
                {"checked_reads", figures.checked_reads},
                {"messages", figures.messages},
                {"virtual_ns", figures.virtual_ns},
                {"pages", pages_of(options.pattern, options.hosts)},
                {"entries_most", figures.entries_most},
                {"managed_most", figures.rows_most},
                {"early_most", figures.parked_most}}},
              {"memory",
               {{"bytes_per_page", rounded(memory.page())},
                {"entry", memory.entry},
                {"chunk_flag", memory.chunk_flag},
                {"row", rounded(memory.row)},
                {"engine_bytes", memory.engine},
                {"early_bytes", figures.parked_most * parked_message_bytes()},
                {"early_bytes_at_most", memory.parked_at_most}}}}
             .dump() +
         "\n";
}

}  // namespace xenspan::dsm::scale
