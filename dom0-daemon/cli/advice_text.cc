// Advice for people.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "dom0-daemon/cli/advice.h"
#include "dom0-daemon/cli/tables.h"
#include "dsm-rdma/types.h"

namespace xenspan::cli {
namespace {

constexpr std::size_t kNumbersUpTo = 16, kHeatUpTo = 64;  // vCPUs that a matrix is shown for
constexpr std::string_view kHeat = ".:-=+*#%@";
constexpr double kShortest = 0.05;  // seconds; below that a rate means nothing

// 12 400
std::string grouped(std::uint64_t number) {
  std::string text = std::to_string(number);
  for (std::size_t at = text.size(); at > 3;) text.insert(at -= 3, 1, ' ');
  return text;
}

// "12 400 times a second", or "17 times" when that is all there was time for.
class Rate {
 public:
  explicit Rate(double seconds) : seconds_(seconds) {}
  std::string number(std::uint64_t count) const {
    if (seconds_ < kShortest) return grouped(count);
    const double rate = static_cast<double>(count) / seconds_;
    return rate < 9.95 ? fmt::format("{:.1f}", rate)
                       : grouped(static_cast<std::uint64_t>(std::llround(rate)));
  }
  const char* unit() const { return seconds_ < kShortest ? "" : " a second"; }
  std::string times(std::uint64_t count) const {
    return fmt::format("{} times{}", number(count), unit());
  }
  std::string faults(std::uint64_t count) const {
    return fmt::format("{} faults{}", number(count), unit());
  }

 private:
  double seconds_;
};

std::string vcpu_list(const std::vector<std::size_t>& vcpus) {
  std::string text;
  for (std::size_t i = 0; i < vcpus.size(); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : i + 1 == vcpus.size() ? " and " : ", ", vcpus[i]);
  return fmt::format("vCPU{} {}", vcpus.size() == 1 ? "" : "s", text);
}

std::string number_matrix(const std::vector<std::vector<std::uint64_t>>& matrix,
                          const std::vector<std::string>& rows,
                          const std::vector<std::string>& columns, const Rate& rate) {
  std::vector<std::vector<std::string>> cells = {{""}};
  for (const std::string& column : columns) cells.front().push_back(fmt::format(">{}", column));
  for (std::size_t i = 0; i < matrix.size(); ++i) {
    cells.push_back({rows[i]});
    for (const std::uint64_t faults : matrix[i])
      cells.back().push_back(faults == 0 ? "." : rate.number(faults));
  }
  return table(cells);
}

std::string heat_matrix(const Advice& advice, const std::vector<std::string>& rows) {
  std::uint64_t highest = 1;
  for (const auto& row : advice.vcpus)
    highest = std::max(highest, *std::max_element(row.begin(), row.end()));
  std::size_t width = 0;
  for (const std::string& row : rows) width = std::max(width, row.size());
  std::string text;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    text += fmt::format("{:<{}}  ", rows[i], width);
    for (const std::uint64_t faults : advice.vcpus[i])
      text += faults == 0 ? ' ' : kHeat[faults * (kHeat.size() - 1) / highest];
    text += "|\n";
  }
  return text;
}

std::string matrix_text(const Advice& advice, const Rate& rate) {
  const std::size_t vcpus = advice.vcpu_hosts.size();
  std::vector<std::string> rows, columns;
  for (std::size_t i = 0; i < vcpus; ++i) {
    rows.push_back(fmt::format("{} on {}", i, advice.hosts[advice.vcpu_hosts[i]]));
    columns.push_back(std::to_string(i));
  }
  std::string text;
  if (vcpus <= kNumbersUpTo) {
    text = fmt::format("\nFaults{} of a vCPU (row) on pages taken from another one (column)\n",
                       rate.unit());
    text += number_matrix(advice.vcpus, rows, columns, rate);
  } else if (vcpus <= kHeatUpTo) {
    text = fmt::format(
        "\nFaults of a vCPU (row) on pages taken from another one (column, from 0), from few ({}) "
        "to most ({})\n",
        kHeat.front(), kHeat.back());
    text += heat_matrix(advice, rows);
  }
  text += fmt::format("\nFaults{} of a host (row) on pages taken from another one (column)\n",
                      rate.unit());
  return text + number_matrix(advice.host_takes, advice.hosts, advice.hosts, rate);
}

std::string placement_text(const Advice& advice, const Rate& rate) {
  std::string text = "\nPlacement\n";
  for (const Advice::Pair& pair : advice.pairs)
    text += fmt::format(
        "vCPUs {} and {} take pages from each other {}; together on one host they would not.\n",
        pair.first, pair.second, rate.times(pair.faults));
  if (!advice.moves())
    return text +
           "No other placement of these vCPUs on these hosts saves one fault in a hundred.\n";
  text += "Best placement:";
  for (std::size_t host = 0; host < advice.hosts.size(); ++host) {
    std::vector<std::size_t> there;
    for (std::size_t i = 0; i < advice.grouping.host.size(); ++i)
      if (advice.grouping.host[i] == static_cast<int>(host)) there.push_back(i);
    text += fmt::format("{} {} on host {}", host == 0 ? "" : ";",
                        there.empty() ? "none" : vcpu_list(there), advice.hosts[host]);
  }
  const std::uint64_t saved = advice.grouping.before - advice.grouping.after;
  return text + fmt::format(". It saves {} of {} ({} %).\n", rate.number(saved),
                            rate.faults(advice.grouping.before),
                            saved * 100 / advice.grouping.before);
}

std::string place_text(const Place& place) {
  const std::string offsets = place.low == place.high
                                  ? fmt::format("offset {:#x}", place.low)
                                  : fmt::format("offsets {:#x} to {:#x}", place.low, place.high);
  const char* verb = place.writes ? "write" : "read";
  return fmt::format("{} {}{} {}{}", vcpu_list(place.vcpus), verb,
                     place.vcpus.size() == 1 ? "s" : "", offsets,
                     place.name.empty() ? "" : fmt::format(": {}", place.name));
}

std::string page_text(const Advice::Page& page, const Rate& rate) {
  std::string text = fmt::format("page {:#x}, {}\n", page.gfn, rate.faults(page.faults));
  for (const auto& part : page.parts)
    for (const Place& place : part)
      text += fmt::format("  {} {}\n", &place == &part.front() ? '-' : ' ', place_text(place));
  return text;
}

}  // namespace

std::string advice_text(const Advice& advice) {
  const Rate rate(advice.seconds);
  std::string text =
      fmt::format("Domain {}: {} took a page from another host ({} in {:.1f} s).\n", advice.domain,
                  rate.faults(advice.faults), grouped(advice.faults), advice.seconds);
  if (advice.faults == 0) return text + "There is nothing to advise.\n";
  text += matrix_text(advice, rate);
  text += placement_text(advice, rate);
  if (!advice.to_pad.empty()) {
    text += "\nData to pad (false sharing: these vCPUs use different bytes of one page)\n";
    for (const Advice::Page& page : advice.to_pad)
      text += page_text(page, rate) +
              fmt::format("  Align each to {0} bytes, and pad it to {0}.\n", dsm::kPageSize);
  }
  if (!advice.shared.empty()) {
    text += "\nData that several hosts need (padding does not help; placement does)\n";
    for (const Advice::Page& page : advice.shared) text += page_text(page, rate);
  }
  if (advice.allocator_matters())
    text += fmt::format(
        "\nMemory from malloc\n"
        "{} of these are on pages that malloc shares out among threads. One with pages for each "
        "thread often helps,\nwithout a change to the program: LD_PRELOAD=libmimalloc.so.2 (see "
        "SPEED in xenspan-usermode(7)).\n",
        rate.faults(advice.allocator_faults));
  return text;
}

}  // namespace xenspan::cli
