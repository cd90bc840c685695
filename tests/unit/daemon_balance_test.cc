// When vCPUs move by themselves: with made-up loads and a clock of the test's own.
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <random>

#include "dom0-daemon/daemon/balance.h"
#include "dom0-daemon/daemon/core_load.h"

namespace xenspan::daemon {
namespace {

// Two hosts with cores 0 and 1, one vCPU on each, and others' work as told, for so many seconds.
struct Machine {
  std::vector<BalanceVcpu> vcpus = {{0, 0, true}, {1, 0, true}};
  std::vector<int> cores = {2, 1};  // of each host
  LoadBalance balance;
  double now = 1000;
  int moves = 0;
  std::string reason;

  using Load = std::function<double(int host, int core, double now)>;
  // Returns the seconds until the first move, or -1.
  double run(double seconds, const Load& load) {
    const double start = now;
    double first = -1;
    for (; now < start + seconds; ++now) {
      std::vector<BalanceCore> all;
      for (int host = 0; host < static_cast<int>(cores.size()); ++host)
        for (int core = 0; core < cores[static_cast<std::size_t>(host)]; ++core) {
          int here = 0;
          for (const BalanceVcpu& vcpu : vcpus) here += vcpu.host == host && vcpu.core == core;
          all.push_back({host, core, load(host, core, now), here});
        }
      const auto move = balance.sample(now, all, vcpus);
      if (!move) continue;
      ++moves;
      if (first < 0) first = now - start;
      reason = move->reason;
      vcpus[move->vcpu].host = move->host;
      vcpus[move->vcpu].core = move->core;
      balance.moved(move->vcpu, now);
    }
    return first;
  }
};
double quiet(int, int, double) { return 0; }
double host_1_busy(int host, int, double) { return host == 1 ? 0.75 : 0; }

TEST(LoadBalance, AQuietMachineStaysAsItIs) {
  Machine machine;
  EXPECT_EQ(machine.run(1000, quiet), -1);
}

TEST(LoadBalance, AVcpuLeavesABusyHostForAFreeCore) {
  Machine machine;
  const double after = machine.run(60, host_1_busy);
  EXPECT_GE(after, LoadBalance::kPatience);
  EXPECT_LE(after, 10);
  EXPECT_EQ(machine.moves, 1);
  EXPECT_EQ(machine.vcpus[1].host, 0);
  EXPECT_EQ(machine.vcpus[1].core, 1) << "the free one";
  EXPECT_NE(machine.reason.find("75%"), std::string::npos) << machine.reason;
}

TEST(LoadBalance, ItSharesACoreWhenThatIsClearlyBetter) {
  Machine machine;
  machine.cores = {1, 1};
  EXPECT_EQ(machine.run(60, [](int host, int, double) { return host == 1 ? 0.5 : 0; }), -1)
      << "half of a core there, half of a core here";
  EXPECT_GT(machine.run(60, host_1_busy), 0);
  EXPECT_EQ(machine.vcpus[1].host, 0);
  // The others go: a core of its own is worth the way back.
  machine.run(60, quiet);
  EXPECT_EQ(machine.vcpus[1].host, 1);
  EXPECT_EQ(machine.moves, 2);
}

TEST(LoadBalance, NobodyGoesWhereItIsAsBusy) {
  Machine machine;
  EXPECT_EQ(machine.run(100, [](int, int, double) { return 0.9; }), -1);
}

TEST(LoadBalance, TheFirstAndTheIdleStay) {
  Machine machine;
  machine.vcpus = {{1, 0, true}, {1, 0, false}};
  EXPECT_EQ(machine.run(100, host_1_busy), -1);
}

TEST(LoadBalance, AShortBurstMovesNobody) {
  Machine machine;
  EXPECT_EQ(machine.run(100,
                        [](int host, int, double now) {
                          return host == 1 && static_cast<int>(now) % 20 < 2 ? 1.0 : 0;
                        }),
            -1);
}

TEST(LoadBalance, SamplesFarApartDoNotBelongTogether) {
  Machine machine;
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(machine.run(2, host_1_busy), -1);
    machine.now += 10;
  }
}

// Loads that jump to where the vCPU is: an hour of them, of many periods and by chance.
TEST(LoadBalance, AFlappingLoadMovesAVcpuSeldom) {
  for (const int period : {1, 2, 3, 5, 8, 13, 21, 34, 55}) {
    Machine machine;
    machine.run(3600, [&](int host, int, double now) {
      return static_cast<int>(now) / period % 2 == host ? 0.9 : 0;
    });
    EXPECT_LE(machine.moves, 11) << "period " << period;
  }
  Machine chased;
  chased.run(3600, [&](int host, int, double) { return chased.vcpus[1].host == host ? 0.9 : 0; });
  EXPECT_GE(chased.moves, 2);
  EXPECT_LE(chased.moves, 11) << "a load that follows the vCPU";
  std::mt19937 random(7);
  Machine noisy;
  noisy.run(3600, [&](int, int, double) { return static_cast<double>(random() % 1000) / 1000; });
  EXPECT_LE(noisy.moves, 11);
}

TEST(LoadBalance, AMoveIsForOneVcpuAtATime) {
  Machine machine;
  machine.cores = {3, 1};
  machine.vcpus = {{0, 0, true}, {1, 0, true}, {1, 0, true}};
  EXPECT_GT(machine.run(5, host_1_busy), 0);
  EXPECT_EQ(machine.moves, 1);
  machine.run(60, host_1_busy);
  EXPECT_EQ(machine.vcpus[1].host, 0);
  EXPECT_EQ(machine.vcpus[2].host, 0);
  EXPECT_NE(machine.vcpus[1].core, machine.vcpus[2].core);
}

class Fights : public testing::Test {
 protected:
  // 4 vCPUs: 0 and 1 on host 0, 2 and 3 on host 1. So many faults a second between the pairs.
  std::size_t step(std::size_t a, std::size_t b, std::uint64_t rate) {
    now_ += 5;
    takes_[a][b] += rate * 5;
    takes_[b][a] += rate * 5;
    const auto moves = balance_.sample(now_, takes_, vcpus_, {2, 2});
    for (const BalanceMove& move : moves) {
      vcpus_[move.vcpu].host = move.host;
      balance_.moved(move.vcpu, now_);
    }
    return moves.size();
  }
  std::vector<std::vector<std::uint64_t>> takes_{4, std::vector<std::uint64_t>(4)};
  std::vector<BalanceVcpu> vcpus_ = {{0, 0, true}, {0, 1, true}, {1, 0, true}, {1, 1, true}};
  AffinityBalance balance_;
  double now_ = 100;
};

TEST_F(Fights, VcpusThatFightComeTogether) {
  EXPECT_EQ(step(0, 2, 1000), 0u) << "nothing to compare with";
  EXPECT_EQ(step(0, 2, 1000), 0u) << "once is chance";
  EXPECT_EQ(step(0, 2, 1000), 2u) << "one comes, one goes: two have room";
  EXPECT_EQ(vcpus_[2].host, 0);
  EXPECT_EQ(vcpus_[0].host, 0) << "vCPU 0 stays";
  for (int i = 0; i < 100; ++i) EXPECT_EQ(step(0, 2, 1000), 0u);
}

TEST_F(Fights, FewFaultsAreNotWorthAMove) {
  for (int i = 0; i < 100; ++i) EXPECT_EQ(step(0, 2, 10), 0u);
}

TEST_F(Fights, AFightThatGoesRoundMovesVcpusSeldom) {
  std::size_t moves = 0;
  for (std::size_t i = 0; i < 720; ++i) moves += step(1 + i / 4 % 2, 3, 1000);
  EXPECT_LE(moves, 33u) << "3 vCPUs, 11 times in an hour";
}

TEST(CoreLoad, ReadsWhatTheKernelSaysOfCores) {
  const auto times = core_times_from(
      "cpu  9 9 9 9 9 9 9 9 9 9\n"
      "cpu0 100 10 20 300 40 5 6 7 50 0\ncpu12 1 2 3 4 5 6 7 8 0 0\nintr 7 8\nctxt 9\n");
  ASSERT_EQ(times.size(), 2u);
  EXPECT_EQ(times.at(0).all, 488u) << "guests' time is counted once";
  EXPECT_EQ(times.at(0).busy, 148u);
  EXPECT_EQ(times.at(12).busy, 27u);
  EXPECT_TRUE(core_times_from("").empty());
  EXPECT_TRUE(core_times_from("cpu\ncpux 1 2\ncpu99999 1\nnothing").empty());
}

TEST(CoreLoad, ReadsWhatTheKernelSaysOfThreads) {
  const auto times = task_times_from(
      "77 (a ) 1 2 (b) R 1 2 3 4 -1 4194304 12 13 14 15 160 17 18 19 20 0 1 0 5 1000 10 11 12 13 "
      "14 "
      "15 16 17 18 19 20 21 22 23 17 3 0 0 0 0 0\n");
  ASSERT_TRUE(times);
  EXPECT_EQ(times->busy, 177u);
  EXPECT_EQ(times->core, 3);
  EXPECT_FALSE(task_times_from(""));
  EXPECT_FALSE(task_times_from("77 (a) R 1 2 3"));
}

TEST(CoreLoad, NobodyIsToldWithoutSlices) {
  CoreLoad load({0});
  load.look({});
  EXPECT_TRUE(load.others().empty());
  load.look({::getpid()});
  EXPECT_TRUE(load.others().empty()) << "one look tells nothing";
}

}  // namespace
}  // namespace xenspan::daemon
