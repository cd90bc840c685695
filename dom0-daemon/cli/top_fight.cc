#include "dom0-daemon/cli/top_fight.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace xenspan::cli {
namespace {

using daemon::array_field;
using daemon::number_or;
using daemon::text_or;

constexpr std::size_t kShown = 4;  // vCPUs
constexpr double kFewest = 1;      // faults a second

const Json* pages_of(const Json& stats) {
  const Json* sharing = daemon::object_field(stats, "sharing");
  return sharing == nullptr ? nullptr : array_field(*sharing, "pages");
}

std::uint64_t count(const FightSample& sample, std::uint64_t gfn, std::uint64_t vcpu) {
  const auto page = sample.faults.find(gfn);
  if (page == sample.faults.end()) return 0;
  const auto found = page->second.find(vcpu);
  return found == page->second.end() ? 0 : found->second;
}

// The name of the page's bytes that are touched most, and the host of each vCPU.
std::string name_of(const Json& stats, std::uint64_t gfn,
                    std::map<std::uint64_t, std::string>& hosts) {
  std::string name;
  for (const Json& page : *pages_of(stats)) {
    const Json* users = array_field(page, "users");
    if (number_or(page, "gfn", 0) != gfn || users == nullptr) continue;
    for (const Json& user : *users) {
      if (name.empty()) name = text_or(user, "name", "");
      hosts[number_or(user, "vcpu", 0)] = text_or(user, "host", "?");
    }
  }
  return name;
}

}  // namespace

FightSample fight_sample_of(const Json& stats, double now) {
  FightSample sample{now, {}};
  const Json* pages = pages_of(stats);
  if (pages == nullptr) return sample;
  for (const Json& page : *pages) {
    const Json* users = array_field(page, "users");
    if (users == nullptr) continue;
    auto& faults = sample.faults[number_or(page, "gfn", 0)];
    for (const Json& user : *users)
      faults[number_or(user, "vcpu", 0)] += number_or(user, "faults", 0);
  }
  return sample;
}

std::string fight_line(const std::string& name, const Json& stats, const FightSample& now,
                       const FightSample& before) {
  const double seconds = now.when - before.when;
  if (seconds <= 0) return "";
  std::uint64_t hottest = 0;
  double most = kFewest;
  std::vector<std::pair<double, std::uint64_t>> fighters;
  for (const auto& [gfn, vcpus] : now.faults) {
    std::vector<std::pair<double, std::uint64_t>> rates;
    double sum = 0;
    for (const auto& [vcpu, faults] : vcpus) {
      const std::uint64_t old = std::min(count(before, gfn, vcpu), faults);
      if (faults > old) rates.emplace_back(static_cast<double>(faults - old) / seconds, vcpu);
      if (faults > old) sum += rates.back().first;
    }
    if (rates.size() < 2 || sum <= most) continue;
    most = sum;
    hottest = gfn;
    fighters = std::move(rates);
  }
  if (fighters.empty()) return "";
  std::sort(fighters.begin(), fighters.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  std::map<std::uint64_t, std::string> hosts;
  const std::string symbol = name_of(stats, hottest, hosts);
  std::string line = fmt::format("top fight in {}: page {:x}{}:", name, hottest,
                                 symbol.empty() ? "" : " (" + symbol + ")");
  for (std::size_t i = 0; i < std::min(fighters.size(), kShown); ++i)
    line += fmt::format("{} vCPU {} ({}) {:.0f}/s", i == 0 ? "" : ",", fighters[i].second,
                        hosts[fighters[i].second], fighters[i].first);
  if (fighters.size() > kShown) line += fmt::format(" and {} more", fighters.size() - kShown);
  return line;
}

}  // namespace xenspan::cli
