// Which vCPU of a running domain goes to which host, and when: the decision of the policies `load`
// and `affinity`.
//
// `load`: hosts are shared with others. A vCPU whose core is busy with other work goes to a core of
// another host where it gets clearly more time (in the spirit of dynamic mapping of virtual to
// physical processors: Kaneda, Oyama, Yonezawa, A virtual machine monitor for utilizing
// non-dedicated clusters, SOSP 2005). `affinity`: vCPUs that take pages from each other come
// together on a host, as far as it has cores (affinity.h).
//
// Nothing flaps. A move is made only when it has looked worthwhile, by kGain at least, for
// kPatience without a break, by the last sample and by the samples before it; after a move all
// begins anew; and a vCPU that has moved stays for kRest, twice as long each time, until it has
// stayed for kForget. So a vCPU makes no more than 1 + log2(T / kRest) moves in a time T, plus T /
// kForget, whatever the load does. vCPU 0 stays: the program's first thread belongs to the home's
// files and terminal. The answer depends on nothing but what was told; time is told too. Threading:
// plain values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace xenspan::daemon {

struct BalanceCore {
  int host = 0;
  int core = 0;
  double others = 0;  // share of the core that others' work took of late, 0 to 1
  int vcpus = 0;      // of all domains
};

struct BalanceVcpu {
  int host = 0;
  int core = 0;
  bool busy = false;  // has guest threads
};

struct BalanceMove {
  std::size_t vcpu = 0;
  int host = 0;
  int core = 0;
  std::string reason;  // a sentence's end: "core 1 of its host is 75% busy with other work"
};

// How long a vCPU stays once it has moved.
class Rest {
 public:
  bool over(std::size_t vcpu, double now) const;
  void moved(std::size_t vcpu, double now);

 private:
  struct Stay {
    double since = 0, length = 0;
  };
  std::map<std::size_t, Stay> stays_;
};

class LoadBalance {
 public:
  static constexpr double kGain = 1.5;    // times the time that the vCPU gets now
  static constexpr double kSmooth = 0.4;  // of a new sample
  static constexpr double kPatience = 3;  // seconds
  static constexpr double kMostGap = 5;   // seconds between two samples that belong together
  static constexpr double kForget = 900;  // seconds
  static constexpr double kRest = 10;     // seconds

  // One sample, about once a second. At most one move at a time.
  std::optional<BalanceMove> sample(double now, std::vector<BalanceCore> cores,
                                    const std::vector<BalanceVcpu>& vcpus);
  // The vCPU was moved, or could not be: it is left alone for a while.
  void moved(std::size_t vcpu, double now);

 private:
  std::map<std::pair<int, int>, double> others_;  // smoothed, by host and core
  std::optional<std::size_t> wanted_;             // the vCPU that a move is worthwhile for
  double wanted_since_ = 0, last_ = 0;
  Rest rest_;
};

class AffinityBalance {
 public:
  static constexpr double kGain = 0.7;      // faults between hosts afterwards, of those before
  static constexpr double kFewest = 100;    // faults between hosts a second; fewer cost nothing
  static constexpr unsigned kPatience = 2;  // samples that agree

  // `takes`: totals since the domain began (affinity.h); `room`: vCPUs that a host can have. All
  // moves of one grouping, in an order that may be followed one by one.
  std::vector<BalanceMove> sample(double now, std::vector<std::vector<std::uint64_t>> takes,
                                  const std::vector<BalanceVcpu>& vcpus,
                                  const std::vector<int>& room);
  void moved(std::size_t vcpu, double now);

 private:
  std::vector<std::vector<std::uint64_t>> before_;
  double last_ = 0;
  unsigned agreed_ = 0;
  std::vector<int> wanted_;
  Rest rest_;
};

}  // namespace xenspan::daemon
