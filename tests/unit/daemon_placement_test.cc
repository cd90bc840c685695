// Placement: who gets how many vCPUs, on which cores, by which wire, and every refusal.
#include <gtest/gtest.h>

#include "dom0-daemon/daemon/placement.h"
#include "dom0-daemon/daemon/transport_choice.h"

namespace xenspan::daemon {
namespace {

constexpr std::uint64_t kGib = std::uint64_t{1} << 30;

HostChoice host(const std::string& name, std::vector<int> cores) {
  HostChoice choice;
  choice.name = name;
  choice.active = true;
  choice.record.name = name;
  choice.record.version = "1";
  choice.record.core_use.assign(cores.size(), 0);
  choice.record.cores = std::move(cores);
  choice.record.memory = 8 * kGib;
  return choice;
}

std::vector<HostChoice> three_hosts() {
  return {host("a", {0}), host("b", {0, 1}), host("c", {4})};
}

PlacementRequest request(std::vector<std::string> hosts = {}, int vcpus = 0) {
  PlacementRequest wish;
  wish.home = "b";
  wish.hosts = std::move(hosts);
  wish.vcpus = vcpus;
  return wish;
}

std::vector<std::string> names(const Placement& placement) {
  std::vector<std::string> list;
  for (const HostRecord& each : placement.hosts) list.push_back(each.name);
  return list;
}

std::string refusal(const PlacementRequest& wish, const std::vector<HostChoice>& known) {
  const auto placement = place(wish, known);
  return placement.ok() ? "" : placement.error().message;
}

void expect_words(const std::string& text, std::initializer_list<const char*> words) {
  for (const char* word : words) EXPECT_NE(text.find(word), std::string::npos) << text;
}

TEST(Placement, DefaultIsEveryActiveHostAndCoreHomeFirst) {
  const auto placement = place(request(), three_hosts());
  ASSERT_TRUE(placement.ok());
  EXPECT_EQ(names(*placement), (std::vector<std::string>{"b", "a", "c"}));
  ASSERT_EQ(placement->vcpus.size(), 4u);
  EXPECT_EQ(placement->vcpus_on(0), 2);
  EXPECT_EQ(placement->vcpus[0].host, 0);
  EXPECT_EQ(placement->vcpus[3].core, 4);
  EXPECT_EQ(placement->memory, 8 * kGib);
  EXPECT_FALSE(placement->memory_promised);
}

TEST(Placement, BlocksAreContiguousAndInProportion) {
  const auto placement = place(request({}, 8), three_hosts());
  ASSERT_TRUE(placement.ok());
  std::vector<int> hosts;
  for (const auto& vcpu : placement->vcpus) hosts.push_back(vcpu.host);
  EXPECT_EQ(hosts, (std::vector<int>{0, 0, 0, 0, 1, 1, 2, 2}));
}

TEST(Placement, SharesAlwaysAddUpAndNobodyGetsNothing) {
  std::vector<HostChoice> known = {host("a", {0, 1, 2, 3, 4, 5, 6}), host("b", {0}),
                                   host("c", {0, 1})};
  for (int vcpus = 3; vcpus <= 64; ++vcpus) {
    const auto placement = place(request({"a", "b", "c"}, vcpus), known);
    ASSERT_TRUE(placement.ok()) << vcpus;
    EXPECT_EQ(static_cast<int>(placement->vcpus.size()), vcpus);
    for (int i = 0; i < 3; ++i) {
      EXPECT_GE(placement->vcpus_on(i), 1) << vcpus;
      const double exact =
          vcpus * static_cast<double>(placement->hosts[static_cast<std::size_t>(i)].cores.size()) /
          10;
      // Within one of the exact share, or more only because others may not fall below one.
      EXPECT_LE(placement->vcpus_on(i), std::max(1.0, exact + 1)) << vcpus;
    }
  }
}

TEST(Placement, LeastUsedCoresAreTakenFirst) {
  auto known = three_hosts();
  known[1].record.core_use = {3, 1};
  const auto placement = place(request({"b"}, 3), known);
  ASSERT_TRUE(placement.ok());
  EXPECT_EQ(placement->vcpus[0].core, 1);
  EXPECT_EQ(placement->vcpus[1].core, 1);
  EXPECT_EQ(placement->vcpus[2].core, 0);
}

TEST(Placement, FewerVcpusThanHostsUseFewerHosts) {
  const auto placement = place(request({}, 2), three_hosts());
  ASSERT_TRUE(placement.ok());
  EXPECT_EQ(names(*placement), (std::vector<std::string>{"b", "a"}));
}

TEST(Placement, InactiveHostsAreLeftOutByDefault) {
  auto known = three_hosts();
  known[0].active = false;
  const auto placement = place(request(), known);
  ASSERT_TRUE(placement.ok());
  EXPECT_EQ(names(*placement), (std::vector<std::string>{"b", "c"}));
}

TEST(Placement, RefusalsNameTheThing) {
  auto known = three_hosts();
  expect_words(refusal(request({"b", "zz"}), known), {"no such host: zz", "a, b, c"});
  expect_words(refusal(request({"b", "b"}), known), {"b is named twice"});
  expect_words(refusal(request({"a"}), known), {"host b is the home"});
  expect_words(refusal(request({"a", "b"}, 1), known), {"1 vCPUs", "2 hosts", "--vcpus 2"});
  expect_words(refusal(request({}, 5000), known), {"5000", "1024"});
  known[0].active = false;
  known[0].error = "cannot connect";
  expect_words(refusal(request({"b", "a"}), known), {"host a is not connected", "cannot connect"});
}

TEST(Placement, MemoryIsAPromiseOfEveryHost) {
  auto known = three_hosts();
  known[2].record.memory_used = 6 * kGib;
  PlacementRequest wish = request();
  wish.memory = 2 * kGib;
  const auto placement = place(wish, known);
  ASSERT_TRUE(placement.ok());
  EXPECT_TRUE(placement->memory_promised);
  wish.memory = 3 * kGib;
  expect_words(refusal(wish, known), {"not enough memory on host c", "3G", "2G of 8G"});
}

TEST(Placement, OtherVersionsAndLesserCpusAreRefused) {
  auto known = three_hosts();
  known[2].record.version = "2";
  expect_words(refusal(request(), known), {"host c runs xenspan 2", "host b runs 1"});
  known = three_hosts();
  known[1].record.cpu[2] = 1u << 5;  // leaf 7 EBX bit 5: avx2, at home only
  expect_words(refusal(request(), known), {"host a's CPU lacks", "avx2"});
  // The other way round is fine: the program learns the features of its home.
  known[1].record.cpu[2] = 0;
  known[0].record.cpu[2] = 1u << 5;
  EXPECT_EQ(refusal(request(), known), "");
}

TEST(Placement, AMovingVcpuTakesTheLeastUsedCore) {
  HostRecord host;
  host.cores = {4, 5, 6};
  host.core_use = {1, 0, 0};
  CoreChoice choice = choose_core(host, {0, 0, 0});
  EXPECT_EQ(choice.core, 5);
  EXPECT_EQ(choice.shared, 0);
  // What the host said is older than what the domain knows of its own vCPUs.
  choice = choose_core(host, {0, 2, 0});
  EXPECT_EQ(choice.core, 6);
  choice = choose_core(host, {2, 2, 1});
  EXPECT_EQ(choice.core, 6);
  EXPECT_EQ(choice.shared, 1);
}

using xenstore::Transport;

std::vector<HostRecord> wired(std::vector<RdmaPort> ports) {
  std::vector<HostRecord> hosts;
  for (RdmaPort& port : ports) {
    hosts.push_back(host(std::string(1, static_cast<char>('a' + hosts.size())), {0}).record);
    hosts.back().rdma = std::move(port);
  }
  return hosts;
}

const RdmaPort kRoce{"mlx5_0/1", "ethernet", ""}, kInfiniband{"mlx5_1/1", "infiniband", ""},
    kNoDevice{"", "", "it has no RDMA device: load its driver"};

TEST(TransportChoice, AutoTakesRdmaWhereEveryHostHasIt) {
  EXPECT_EQ(*choose_transport(TransportWish::kAuto, wired({kRoce, kRoce, kRoce})),
            Transport::kVerbs);
  EXPECT_EQ(*choose_transport(TransportWish::kAuto, wired({kInfiniband, kInfiniband})),
            Transport::kVerbs);
  EXPECT_EQ(*choose_transport(TransportWish::kAuto, wired({kRoce, kNoDevice})), Transport::kTcp);
  EXPECT_EQ(*choose_transport(TransportWish::kAuto, wired({kRoce, kInfiniband})), Transport::kTcp);
  auto secret = wired({kRoce, kRoce});
  secret[1].encrypt = true;
  EXPECT_EQ(*choose_transport(TransportWish::kAuto, secret), Transport::kTcp);
  EXPECT_EQ(*choose_transport(TransportWish::kTcp, wired({kRoce, kRoce})), Transport::kTcp);
  // One host: nothing travels, whatever was asked for.
  for (const TransportWish wish :
       {TransportWish::kAuto, TransportWish::kTcp, TransportWish::kVerbs})
    EXPECT_EQ(*choose_transport(wish, wired({kNoDevice})), Transport::kNone);
}

TEST(TransportChoice, VerbsIsRefusedNamingHostAndRemedy) {
  const auto refused = [](const std::vector<HostRecord>& hosts) {
    const auto choice = choose_transport(TransportWish::kVerbs, hosts);
    return choice.ok() ? "" : choice.error().message;
  };
  expect_words(refused(wired({kRoce, kNoDevice})),
               {"host b", "no RDMA device", "load its driver", "--transport tcp"});
  expect_words(refused(wired({kRoce, kInfiniband})), {"mlx5_1/1", "host b", "rdma-device"});
  auto secret = wired({kRoce, kRoce});
  secret[0].encrypt = true;
  expect_words(refused(secret), {"host a", "encrypt = true", "--transport tcp"});
  EXPECT_EQ(refused(wired({kRoce, kRoce})), "");
}

TEST(Placement, APackedDomainFillsHostAfterHost) {
  PlacementRequest wish = request({}, 2);
  wish.pack = true;
  auto packed = place(wish, three_hosts());
  ASSERT_TRUE(packed) << packed.error().message;
  EXPECT_EQ(names(*packed), std::vector<std::string>{"b"});
  wish.vcpus = 3;
  packed = place(wish, three_hosts());
  ASSERT_TRUE(packed);
  EXPECT_EQ(names(*packed), (std::vector<std::string>{"b", "a"}));
  EXPECT_EQ(packed->vcpus_on(0), 2);
  EXPECT_EQ(packed->vcpus_on(1), 1);
  wish.vcpus = 9;
  packed = place(wish, three_hosts());
  ASSERT_TRUE(packed);
  EXPECT_EQ(packed->hosts.size(), 3u);
  EXPECT_EQ(packed->vcpus.size(), 9u);
}

}  // namespace
}  // namespace xenspan::daemon
