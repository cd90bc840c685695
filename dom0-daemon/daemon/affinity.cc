#include "dom0-daemon/daemon/affinity.h"

#include <algorithm>
#include <numeric>

namespace xenspan::daemon {
namespace {

using Weight = std::int64_t;

// Placements that are few enough to look at each of them.
constexpr double kExactLimit = 200'000;

class Grouping {
 public:
  explicit Grouping(const AffinityProblem& problem)
      : now_(problem.host),
        room_(problem.room),
        fixed_(problem.fixed),
        price_(static_cast<Weight>(problem.price)),
        weight_(now_.size(), std::vector<Weight>(now_.size())) {
    fixed_.resize(size());
    for (std::size_t i = 0; i < size(); ++i)
      for (std::size_t j = 0; j < size(); ++j)
        if (i != j) weight_[i][j] = static_cast<Weight>(problem.takes[i][j] + problem.takes[j][i]);
    std::vector<int> used(hosts());
    for (const int host : now_) ++used[index(host)];
    for (std::size_t host = 0; host < hosts(); ++host)
      room_[host] = std::max(room_[host], used[host]);
  }

  Affinity solve() {
    Affinity result;
    result.before = static_cast<std::uint64_t>(cut(now_));
    result.host = is_small() ? exact() : searched();
    result.after = static_cast<std::uint64_t>(cut(result.host));
    return result;
  }

 private:
  static std::size_t index(int host) { return static_cast<std::size_t>(host); }
  std::size_t size() const { return now_.size(); }
  std::size_t hosts() const { return room_.size(); }

  Weight cut(const std::vector<int>& host) const {
    Weight sum = 0;
    for (std::size_t i = 0; i < size(); ++i)
      for (std::size_t j = 0; j < i; ++j)
        if (host[i] != host[j]) sum += weight_[i][j];
    return sum;
  }
  Weight cost(const std::vector<int>& host) const {
    Weight moved = 0;
    for (std::size_t i = 0; i < size(); ++i) moved += host[i] != now_[i];
    return cut(host) + moved * price_;
  }
  bool is_small() const {
    double placements = 1;
    for (std::size_t i = 0; i < size() && placements <= kExactLimit; ++i)
      if (!fixed_[i]) placements *= static_cast<double>(hosts());
    return placements <= kExactLimit;
  }

  // Of equals the first found wins, and each vCPU is tried where it is first.
  std::vector<int> exact() {
    best_ = now_;
    best_cost_ = cost(now_);
    std::vector<int> host(size(), -1);
    std::vector<int> left = room_;
    for (std::size_t i = 0; i < size(); ++i)
      if (fixed_[i]) --left[index(now_[i])];
    descend(0, 0, host, left);
    return best_;
  }
  void descend(std::size_t vcpu, Weight sum, std::vector<int>& host, std::vector<int>& left) {
    if (sum >= best_cost_) return;
    if (vcpu == size()) {
      best_ = host;
      best_cost_ = sum;
      return;
    }
    for (int turn = -1; turn < static_cast<int>(hosts()); ++turn) {
      const int to = turn < 0 ? now_[vcpu] : turn;
      if (turn == now_[vcpu] || (fixed_[vcpu] && turn >= 0)) continue;
      if (!fixed_[vcpu] && left[index(to)] == 0) continue;
      Weight more = to != now_[vcpu] ? price_ : 0;
      for (std::size_t other = 0; other < vcpu; ++other)
        if (host[other] != to) more += weight_[vcpu][other];
      host[vcpu] = to;
      if (!fixed_[vcpu]) --left[index(to)];
      descend(vcpu + 1, sum + more, host, left);
      if (!fixed_[vcpu]) ++left[index(to)];
    }
    host[vcpu] = -1;
  }

  std::vector<int> searched() {
    std::vector<int> from_now = now_, from_greedy = greedy();
    improve(from_now);
    improve(from_greedy);
    return cost(from_greedy) < cost(from_now) ? from_greedy : from_now;
  }

  // Host by host: grown from the vCPUs that stay there, or from the one that fights most, by the
  // one that fights most with those there, until the host is full.
  std::vector<int> greedy() const {
    std::vector<int> host(size(), -1), left = room_;
    for (std::size_t i = 0; i < size(); ++i)
      if (fixed_[i]) put(host, left, i, now_[i]);
    for (int to = 0; to < static_cast<int>(hosts()); ++to) {
      std::vector<Weight> with(size());  // fights with those on this host
      const auto add = [&](std::size_t i) {
        for (std::size_t j = 0; j < size(); ++j) with[j] += weight_[i][j];
      };
      for (std::size_t i = 0; i < size(); ++i)
        if (host[i] == to) add(i);
      while (left[index(to)] > 0) {
        const bool empty = std::find(host.begin(), host.end(), to) == host.end();
        const std::size_t next = strongest(host, empty ? totals(host) : with);
        if (next == size()) break;
        put(host, left, next, to);
        add(next);
      }
    }
    // Those that fight with nobody.
    for (std::size_t i = 0; i < size(); ++i) {
      if (host[i] >= 0) continue;
      int to = now_[i];
      for (int each = 0; left[index(to)] == 0; ++each) to = each;
      put(host, left, i, to);
    }
    return host;
  }
  static void put(std::vector<int>& host, std::vector<int>& left, std::size_t vcpu, int to) {
    host[vcpu] = to;
    --left[index(to)];
  }
  // Among those without a host; size() when none has any weight.
  std::size_t strongest(const std::vector<int>& host, const std::vector<Weight>& weights) const {
    std::size_t best = size();
    for (std::size_t i = 0; i < size(); ++i)
      if (host[i] < 0 && weights[i] > 0 && (best == size() || weights[i] > weights[best])) best = i;
    return best;
  }
  // What each fights with others that have no host.
  std::vector<Weight> totals(const std::vector<int>& host) const {
    std::vector<Weight> sums(size());
    for (std::size_t i = 0; i < size(); ++i)
      for (std::size_t j = 0; j < size(); ++j)
        if (host[j] < 0) sums[i] += weight_[i][j];
    return sums;
  }

  // Moves and exchanges, the best for each vCPU in turn, until none saves anything.
  void improve(std::vector<int>& host) const {
    std::vector<int> left = room_;
    std::vector<std::vector<Weight>> with(size(), std::vector<Weight>(hosts()));
    for (std::size_t i = 0; i < size(); ++i) {
      --left[index(host[i])];
      for (std::size_t j = 0; j < size(); ++j) with[i][index(host[j])] += weight_[i][j];
    }
    const auto gain_of = [&](std::size_t i, int to) {
      const Weight prices = price_ * ((host[i] != now_[i]) - (to != now_[i]));
      return with[i][index(to)] - with[i][index(host[i])] + prices;
    };
    const auto move = [&](std::size_t i, int to) {
      for (std::size_t j = 0; j < size(); ++j) {
        with[j][index(host[i])] -= weight_[i][j];
        with[j][index(to)] += weight_[i][j];
      }
      ++left[index(host[i])];
      --left[index(to)];
      host[i] = to;
    };
    for (bool better = true; better;) {
      better = false;
      for (std::size_t i = 0; i < size(); ++i) {
        if (fixed_[i]) continue;
        Weight best = 0;
        int to = -1;
        std::size_t against = size();
        for (int each = 0; each < static_cast<int>(hosts()); ++each) {
          if (each == host[i] || left[index(each)] == 0 || gain_of(i, each) <= best) continue;
          best = gain_of(i, each);
          to = each;
        }
        for (std::size_t j = 0; j < size(); ++j) {
          if (fixed_[j] || host[j] == host[i]) continue;
          const Weight gain = gain_of(i, host[j]) + gain_of(j, host[i]) - 2 * weight_[i][j];
          if (gain <= best) continue;
          best = gain;
          to = host[j];
          against = j;
        }
        if (to < 0) continue;
        better = true;
        const int from = host[i];
        move(i, to);
        if (against < size()) move(against, from);
      }
    }
  }

  const std::vector<int> now_;
  std::vector<int> room_;
  std::vector<bool> fixed_;
  const Weight price_;
  std::vector<std::vector<Weight>> weight_;
  std::vector<int> best_;
  Weight best_cost_ = 0;
};

}  // namespace

Affinity group_vcpus(const AffinityProblem& problem) { return Grouping(problem).solve(); }

}  // namespace xenspan::daemon
