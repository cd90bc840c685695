// The simulator: what its network charges, that a seed decides everything, and that its figures for
// cases one can count by hand are right.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "dsm-rdma/scale/report.h"
#include "dsm-rdma/wire.h"

namespace xenspan::dsm::scale {
namespace {

constexpr std::size_t kSmall = 64, kLarge = 4160;

// Numbers that are easy to add up: 8 Gbit/s is a byte a nanosecond.
Costs plain() {
  return {.latency_ns = 1000,
          .gbit = 8,
          .send_ns = 10,
          .receive_ns = 20,
          .fault_ns = 300,
          .withdraw_ns = 40,
          .protect_ns = 50,
          .jitter = 0};
}

TEST(ScaleNetwork, AMessageTakesItsLatencyAndItsBytes) {
  Network network(plain(), 3, 1);
  EXPECT_EQ(network.arrival(5000, 0, 1, kSmall), 5000u + 1000 + 64);
  EXPECT_EQ(network.arrival(9000, 0, 1, kLarge), 9000u + 1000 + 4160);
}

TEST(ScaleNetwork, ALinkSendsOneMessageAfterTheOther) {
  Network network(plain(), 3, 1);
  EXPECT_EQ(network.arrival(0, 0, 1, kLarge), 1000u + 4160);
  EXPECT_EQ(network.arrival(0, 0, 2, kSmall), 4160u + 1000 + 64) << "behind the page";
  EXPECT_EQ(network.arrival(0, 2, 0, kSmall), 1000u + 64) << "the other direction is free";
}

TEST(ScaleNetwork, ALinkReceivesOneMessageAfterTheOther) {
  Network network(plain(), 3, 1);
  EXPECT_EQ(network.arrival(0, 0, 2, kLarge), 1000u + 4160);
  EXPECT_EQ(network.arrival(0, 1, 2, kLarge), 1000u + 2 * 4160) << "both pages go into host 2";
}

TEST(ScaleNetwork, JitterStaysWithinItsPartAndMessagesOvertake) {
  Costs costs = plain();
  costs.jitter = 0.5;
  std::set<Time> seen;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const Time at = Network(costs, 2, seed).arrival(0, 0, 1, kSmall);
    EXPECT_GE(at, 1064u);
    EXPECT_LE(at, 1564u);
    seen.insert(at);
  }
  EXPECT_GT(seen.size(), 100u);
  EXPECT_EQ(Network(costs, 2, 7).arrival(0, 0, 1, kSmall),
            Network(costs, 2, 7).arrival(0, 0, 1, kSmall));
}

TEST(ScaleNetwork, TheRoundTripIsWhatItsPartsAdd) {
  EXPECT_EQ(plain().round_trip_ns(), 2u * (10 + 1000 + 20) + 64 + 4160);
  Costs costs;
  EXPECT_GT(costs.round_trip_ns(), 7600u) << "the default is one of the measured ones";
  EXPECT_LT(costs.round_trip_ns(), 12700u);
}

Options small(Pattern pattern, unsigned hosts) {
  Options options;
  options.pattern = pattern;
  options.hosts = hosts;
  options.faults = 3000;
  return options;
}

std::string all_of(const Options& options) {
  return json_of({options, simulate(options), memory_of(options.hosts, options.wide)});
}

class ScaleRun : public testing::TestWithParam<std::tuple<Pattern, unsigned>> {
 protected:
  Options options() const { return small(std::get<0>(GetParam()), std::get<1>(GetParam())); }
};

TEST_P(ScaleRun, HoldsTheInvariantsAndEndsAtRest) {
  const Figures figures = simulate(options());
  EXPECT_EQ(figures.violation, "");
  EXPECT_GE(figures.all.faults, options().faults);
  EXPECT_EQ(figures.all.faults, figures.reads.faults + figures.writes.faults);
  EXPECT_GT(figures.checked_reads, 0u);
  EXPECT_GT(figures.all.messages, 0);
  EXPECT_LE(figures.reads.messages_most, 3) << "request, forward, grant";
  EXPECT_LE(figures.writes.messages_most, 2 * options().hosts + 1);
  EXPECT_GE(figures.all.trips_median, 1);
}

TEST_P(ScaleRun, ASeedDecidesEverything) {
  Options again = options();
  EXPECT_EQ(all_of(options()), all_of(again));
  again.seed = 2;
  EXPECT_NE(all_of(options()), all_of(again));
}

// Where the copyset stands changes nothing that anybody can see.
class BothMachines : public ScaleRun {};
TEST_P(BothMachines, DoTheSame) {
  Options wide = options();
  wide.wide = true;
  const auto figures = [](const Options& options) {
    const Figures run = simulate(options);
    return std::tuple(run.messages, run.accesses, run.virtual_ns, run.all.trips_mean,
                      run.writes.messages, run.parked_most);
  };
  EXPECT_EQ(figures(options()), figures(wide));
}

std::string name_of_case(const testing::TestParamInfo<std::tuple<Pattern, unsigned>>& info) {
  std::string name = name_of(std::get<0>(info.param));
  std::erase(name, '-');
  return name + std::to_string(std::get<1>(info.param));
}
INSTANTIATE_TEST_SUITE_P(All, BothMachines,
                         testing::Combine(testing::ValuesIn(kPatterns),
                                          testing::Values(2u, 9u, 64u)),
                         name_of_case);
INSTANTIATE_TEST_SUITE_P(All, ScaleRun,
                         testing::Combine(testing::ValuesIn(kPatterns),
                                          testing::Values(2u, 3u, 64u, 65u, 200u)),
                         name_of_case);

// Two hosts: the manager is requester or owner, so each message of a fault is known.
TEST(ScaleFigures, TwoHostsExchangeTwoMessagesAFault) {
  const Figures figures = simulate(small(Pattern::kMigratory, 2));
  EXPECT_DOUBLE_EQ(figures.reads.messages, 2);
  EXPECT_EQ(figures.reads.messages_most, 2);
}

TEST(ScaleFigures, AnUncontendedReadTakesTheTimeOfItsParts) {
  Options options = small(Pattern::kExchange, 2);
  options.costs = plain();
  options.think_ns = 1'000'000;
  const Figures figures = simulate(options);
  // Fault, request, owner's mapping, grant with the page.
  const Time trip = plain().round_trip_ns(), read = 300 + trip + 50;
  EXPECT_NEAR(figures.reads.trips_median, static_cast<double>(read) / static_cast<double>(trip),
              0.02);
}

TEST(ScaleFigures, ADirectoryOfManyHostsIsNoLarger) {
  for (unsigned hosts : {2u, 64u}) {
    EXPECT_EQ(memory_of(hosts, false).entry, 20);
    EXPECT_EQ(memory_of(hosts, false).row, 0);
    EXPECT_LE(memory_of(hosts, false).page(), 20.1);
  }
  for (unsigned hosts : {65u, 100u, 256u, 1000u, 1024u}) {
    EXPECT_LE(memory_of(hosts, false).page(), 24) << hosts;
  }
  // At 1024 hosts: one bit a page and host.
  EXPECT_DOUBLE_EQ(memory_of(1024, false).row, 1.0 / 8);
}

TEST(ScaleReport, JsonAndPictureHoldWhatWasMeasured) {
  std::vector<Result> results;
  for (unsigned hosts : {2u, 8u}) {
    const Options options = small(Pattern::kRandom, hosts);
    results.push_back({options, simulate(options), memory_of(hosts, false)});
  }
  const auto json = nlohmann::json::parse(json_of(results[1]));
  EXPECT_EQ(json.at("pattern"), "random");
  EXPECT_EQ(json.at("hosts"), 8);
  EXPECT_EQ(json.at("all").at("faults"), results[1].figures.all.faults);
  const std::string picture = plot_of(results);
  EXPECT_EQ(picture.rfind("<svg ", 0), 0u);
  std::size_t lines = 0;
  for (std::size_t at = 0; (at = picture.find("<polyline", at)) != std::string::npos; ++at) ++lines;
  EXPECT_EQ(lines, 4u) << "a line in each panel";
  EXPECT_EQ(picture.find("nan"), std::string::npos);
  EXPECT_NE(table_of(results).find("random"), std::string::npos);
}

TEST(ScalePatterns, AccessesStayInTheirPages) {
  Random random(3);
  for (Pattern pattern : kPatterns) {
    for (unsigned hosts : {2u, 5u, 1024u}) {
      Access before{0, false};
      bool wrote = false, read = false;
      for (std::uint64_t count = 0; count < 5000; ++count) {
        const auto host = static_cast<HostId>(hosts - 1);
        before = next_access(pattern, hosts, host, count, before, random);
        ASSERT_LT(before.gfn, pages_of(pattern, hosts)) << name_of(pattern);
        (before.write ? wrote : read) = true;
      }
      EXPECT_TRUE(wrote && read) << name_of(pattern);
    }
  }
}

}  // namespace
}  // namespace xenspan::dsm::scale
