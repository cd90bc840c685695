#include "dom0-daemon/daemon/balance.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "dom0-daemon/daemon/affinity.h"

namespace xenspan::daemon {
namespace {

constexpr double kLongest = 3600;  // seconds of rest
constexpr double kLeast = 0.05;    // of a core; less is not worth a move

const BalanceCore* find(const std::vector<BalanceCore>& cores, int host, int core) {
  const auto found = std::find_if(cores.begin(), cores.end(), [&](const BalanceCore& each) {
    return each.host == host && each.core == core;
  });
  return found == cores.end() ? nullptr : &*found;
}

// The share of the core that each of so many vCPUs gets.
double speed(const BalanceCore& core, int vcpus) { return (1 - core.others) / std::max(vcpus, 1); }

// The core of another host on which a vCPU gets most; of equals the first.
const BalanceCore* best_elsewhere(const std::vector<BalanceCore>& cores, int host) {
  const BalanceCore* best = nullptr;
  for (const BalanceCore& core : cores)
    if (core.host != host &&
        (best == nullptr || speed(core, core.vcpus + 1) > speed(*best, best->vcpus + 1)))
      best = &core;
  return best;
}

}  // namespace

bool Rest::over(std::size_t vcpu, double now) const {
  const auto found = stays_.find(vcpu);
  return found == stays_.end() || now >= found->second.since + found->second.length;
}

void Rest::moved(std::size_t vcpu, double now) {
  const auto [found, first] = stays_.try_emplace(vcpu);
  Stay& stay = found->second;
  const bool settled = first || now - stay.since > std::max(LoadBalance::kForget, 4 * stay.length);
  stay = {now, settled ? LoadBalance::kRest : std::min(2 * stay.length, kLongest)};
}

std::optional<BalanceMove> LoadBalance::sample(double now, std::vector<BalanceCore> cores,
                                               const std::vector<BalanceVcpu>& vcpus) {
  if (now - last_ > kMostGap) {
    others_.clear();
    wanted_.reset();
  }
  last_ = now;
  // What is seen now and what was seen of late both have to speak for a move.
  std::vector<BalanceCore> calm = cores;
  for (std::size_t i = 0; i < cores.size(); ++i) {
    const double seen = std::clamp(cores[i].others, 0.0, 1.0);
    const auto [smooth, first] = others_.try_emplace({cores[i].host, cores[i].core}, seen);
    if (!first) smooth->second += kSmooth * (seen - smooth->second);
    cores[i].others = std::max(seen, smooth->second);
    calm[i].others = std::min(seen, smooth->second);
  }
  // The one that is worst off, of those that can be helped.
  double least = 2;
  std::optional<BalanceMove> best;
  for (std::size_t i = 1; i < vcpus.size(); ++i) {
    const BalanceCore* here = find(calm, vcpus[i].host, vcpus[i].core);
    const BalanceCore* there = best_elsewhere(cores, vcpus[i].host);
    if (!vcpus[i].busy || here == nullptr || there == nullptr || !rest_.over(i, now)) continue;
    const double gets = speed(*here, here->vcpus), would = speed(*there, there->vcpus + 1);
    if (gets >= least || would < kLeast || would < kGain * gets) continue;
    least = gets;
    best = BalanceMove{
        i, there->host, there->core,
        fmt::format("other work takes {:.0f}% of its core, it gets {:.0f}% and would get {:.0f}%",
                    100 * here->others, 100 * gets, 100 * would)};
  }
  if (!best) {
    wanted_.reset();
    return {};
  }
  if (wanted_ != best->vcpu) {
    wanted_ = best->vcpu;
    wanted_since_ = now;
  }
  if (now - wanted_since_ < kPatience) return {};
  return best;
}

void LoadBalance::moved(std::size_t vcpu, double now) {
  rest_.moved(vcpu, now);
  others_.clear();
  wanted_.reset();
}

std::vector<BalanceMove> AffinityBalance::sample(double now,
                                                 std::vector<std::vector<std::uint64_t>> takes,
                                                 const std::vector<BalanceVcpu>& vcpus,
                                                 const std::vector<int>& room) {
  const double seconds = now - last_;
  last_ = now;
  const auto before = std::exchange(before_, takes);
  if (before.size() != takes.size() || seconds <= 0) return {};
  AffinityProblem problem;
  for (std::size_t i = 0; i < takes.size(); ++i) {
    for (std::size_t j = 0; j < takes.size(); ++j)
      takes[i][j] -= std::min(takes[i][j], before[i][j]);
    problem.host.push_back(vcpus[i].host);
    problem.fixed.push_back(i == 0 || !rest_.over(i, now));
  }
  problem.takes = std::move(takes);
  problem.room = room;
  problem.price = static_cast<std::uint64_t>(kFewest * seconds / 4);
  const Affinity grouping = group_vcpus(problem);
  const auto faults = static_cast<double>(grouping.before);
  const bool worthwhile =
      faults >= kFewest * seconds && static_cast<double>(grouping.after) <= kGain * faults;
  if (!worthwhile || grouping.host != wanted_) agreed_ = 0;
  wanted_ = grouping.host;
  if (!worthwhile || ++agreed_ < kPatience) return {};
  agreed_ = 0;
  std::vector<BalanceMove> moves;
  for (std::size_t i = 0; i < vcpus.size(); ++i) {
    if (grouping.host[i] == vcpus[i].host) continue;
    moves.push_back(
        {i, grouping.host[i], 0,
         fmt::format("vCPUs that fight over pages come together: {:.0f} faults a second "
                     "between hosts, then {:.0f}",
                     faults / seconds, static_cast<double>(grouping.after) / seconds)});
  }
  return moves;
}

void AffinityBalance::moved(std::size_t vcpu, double now) {
  rest_.moved(vcpu, now);
  agreed_ = 0;
}

}  // namespace xenspan::daemon
