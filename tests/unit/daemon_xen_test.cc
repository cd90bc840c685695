// Domains under Xen, as far as there need be no Xen: declarations, and which hosts are refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dom0-daemon/daemon/xen_config_nodes.h"
#include "dom0-daemon/daemon/xen_declaration.h"
#include "dom0-daemon/daemon/xen_host.h"
#include "xenstore-schema/memory_store.h"

namespace xenspan::daemon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

constexpr char kWhole[] = R"({
  "name": "wide", "uuid": "0f1e2d3c-0000-4000-8000-000000000001", "config": "/etc/xen/wide.cfg",
  "hosts": ["b", "c"], "vcpus": [{"cpu": 3}, {"host": "b", "cpu": 0}, {"host": "c"}],
  "transport": "verbs", "encrypt": true, "hold_us": 50})";

std::vector<std::string> faults(std::string_view text) {
  return check_xen_declaration(text).faults;
}

TEST(XenDeclaration, EveryMemberIsRead) {
  const auto checked = check_xen_declaration(kWhole);
  ASSERT_THAT(checked.faults, IsEmpty());
  const XenDeclaration& read = checked.declaration;
  EXPECT_EQ(read.name, "wide");
  EXPECT_EQ(read.uuid, "0f1e2d3c-0000-4000-8000-000000000001");
  EXPECT_EQ(read.config, "/etc/xen/wide.cfg");
  EXPECT_THAT(read.hosts, ElementsAre("b", "c"));
  ASSERT_EQ(read.vcpus.size(), 3U);
  EXPECT_EQ(read.vcpus[0].host, "");
  EXPECT_EQ(read.vcpus[0].cpu, 3);
  EXPECT_EQ(read.vcpus[1].host, "b");
  EXPECT_EQ(read.vcpus[2].cpu, -1);
  EXPECT_EQ(read.transport, TransportWish::kVerbs);
  EXPECT_TRUE(read.encrypt);
  EXPECT_EQ(read.hold_us, 50U);
}

TEST(XenDeclaration, VcpusOfRefusedHostsStayAtHome) {
  const auto placed = check_xen_declaration(kWhole).declaration.placement({"c"});
  EXPECT_EQ(placed[1].host, "");
  EXPECT_EQ(placed[1].cpu, -1);  // the processor was one of b's
  EXPECT_EQ(placed[2].host, "c");
}

TEST(XenDeclaration, AllFaultsAreFoundAtOnce) {
  EXPECT_THAT(
      faults(R"({"name": "a/b", "config": "x", "hosts": ["b", "b", 1], "colour": 1,
                 "vcpus": [{"host": "b"}, {"host": "d"}, {"cpu": -1}, 7, {"core": 1}],
                 "transport": "pigeon", "encrypt": 1, "hold_us": 1.5})"),
      testing::UnorderedElementsAre(
          StartsWith("/name: "), StartsWith("/config: "),
          StartsWith("/hosts/1: \"b\" is named twice"), StartsWith("/hosts/2: "),
          StartsWith("/colour: unknown member: "),
          StartsWith("/vcpus/1/host: \"d\" is not in /hosts: "), StartsWith("/vcpus/2/cpu: "),
          StartsWith("/vcpus/3: not an object: "), StartsWith("/vcpus/4/core: unknown member: "),
          StartsWith("/vcpus/0/host: vCPU 0 cannot leave the home: "),
          StartsWith("/transport: not a transport: use tcp, verbs or auto"),
          StartsWith("/encrypt: "), StartsWith("/hold_us: ")));
}

TEST(XenDeclaration, WhatIsMissingIsSaid) {
  EXPECT_THAT(
      faults("{}"),
      ElementsAre(StartsWith("/: neither name nor uuid: "), StartsWith("/config: missing: "),
                  StartsWith("/hosts: missing: "), StartsWith("/vcpus: missing: ")));
  EXPECT_THAT(faults(R"({"name": "a", "config": "/x", "hosts": ["b"], "vcpus": [{}, {}]})"),
              ElementsAre(StartsWith("/vcpus: no vCPU is placed on another host: ")));
  EXPECT_THAT(faults("[]"), ElementsAre(StartsWith("/: not an object: ")));
}

TEST(XenDeclaration, BrokenJsonHasItsPlace) {
  EXPECT_THAT(faults("{\n\"name\": }"), ElementsAre(HasSubstr("line 2, column 9")));
}

TEST(XenDeclaration, IsFoundByNameAndUuid) {
  XenDeclaration by_name, by_uuid, both;
  by_name.name = "n";
  by_uuid.uuid = "u";
  both.name = "x";
  both.uuid = "y";
  const std::vector<XenDeclaration> all = {by_name, by_uuid, both};
  EXPECT_EQ(find_xen_declaration(all, "n", "any"), &all[0]);
  EXPECT_EQ(find_xen_declaration(all, "any", "u"), &all[1]);
  EXPECT_EQ(find_xen_declaration(all, "x", "y"), &all[2]);
  EXPECT_EQ(find_xen_declaration(all, "x", "any"), nullptr);
}

constexpr char kUuid[] = "0f1e2d3c-0000-4000-8000-000000000001";
constexpr char kNodes[] = "/tool/xenspan/config/0f1e2d3c-0000-4000-8000-000000000001/";

class XenConfigNodes : public testing::Test {
 protected:
  void write(const std::string& node, const char* value) {
    ASSERT_TRUE(store_.write(kNodes + node, value)) << node;
  }
  xenstore::MemoryStore store_;
};

TEST_F(XenConfigNodes, SayWhatAFileSays) {
  EXPECT_FALSE(read_xen_config_nodes(store_, kUuid, 3));
  write("config", "/etc/xen/wide.cfg");
  write("hosts", "b c");
  write("vcpu/1/host", "b");
  write("vcpu/1/cpu", "2");
  write("vcpu/2/host", "c");
  write("encrypt", "true");
  write("hold-us", "50");
  const auto read = read_xen_config_nodes(store_, kUuid, 3);
  ASSERT_TRUE(read);
  EXPECT_THAT(read->faults, IsEmpty());
  const XenDeclaration& all = read->declaration;
  EXPECT_EQ(all.uuid, kUuid);
  EXPECT_EQ(all.config, "/etc/xen/wide.cfg");
  EXPECT_THAT(all.hosts, ElementsAre("b", "c"));
  ASSERT_EQ(all.vcpus.size(), 3U);
  EXPECT_EQ(all.vcpus[0].host, "");
  EXPECT_EQ(all.vcpus[1].host, "b");
  EXPECT_EQ(all.vcpus[1].cpu, 2);
  EXPECT_EQ(all.vcpus[2].host, "c");
  EXPECT_TRUE(all.encrypt);
  EXPECT_EQ(all.hold_us, 50U);
}

TEST_F(XenConfigNodes, FaultsAreToldBesideThem) {
  write("config", "wide.cfg");
  write("hosts", "b b");
  write("vcpu/1/host", "c");
  write("colour", "1");
  const auto read = read_xen_config_nodes(store_, kUuid, 2);
  ASSERT_TRUE(read);
  EXPECT_THAT(read->faults,
              testing::UnorderedElementsAre(StartsWith("/colour: unknown member"),
                                            StartsWith("/config: not an absolute"),
                                            StartsWith("/hosts/1: \"b\" is named twice"),
                                            StartsWith("/vcpus/1/host: \"c\" is not in /hosts")));
  tell_xen_config_error(store_, kUuid, "first fault");
  EXPECT_EQ(*store_.read(std::string(kNodes) + "error"), "first fault");
  EXPECT_EQ(read_xen_config_nodes(store_, kUuid, 2)->faults.size(), 4U);  // the error is no member
  tell_xen_config_error(store_, kUuid, "");
  EXPECT_FALSE(store_.read(std::string(kNodes) + "error"));
}

constexpr std::uint64_t kMib = 1 << 20;

TEST(XenRefusal, NamesTheHostAndTheReason) {
  const XenFacts home{"4.17", "", 64 * kMib};
  const auto refusal = [&](const XenFacts& facts) {
    return xen_refusal("b", facts, "a", home, 32 * kMib);
  };
  EXPECT_EQ(refusal(home), "");
  EXPECT_THAT(refusal({}), StartsWith("host b runs no Xen: "));
  EXPECT_EQ(refusal({"4.17", "this host has an AMD processor", 64 * kMib}),
            "host b: this host has an AMD processor");
  EXPECT_THAT(refusal({"4.18", "", 64 * kMib}),
              StartsWith("host b runs Xen 4.18 and host a runs Xen 4.17: "));
  EXPECT_THAT(refusal({"4.17", "", 31 * kMib}), StartsWith("host b has 31 MiB of memory "));
}

TEST(XenRefusal, FactsTravelUnchanged) {
  const XenFacts facts = xen_facts_from(to_json(XenFacts{"4.17", "no EPT", 5}));
  EXPECT_EQ(facts.version, "4.17");
  EXPECT_EQ(facts.problem, "no EPT");
  EXPECT_EQ(facts.free_memory, 5U);
}

}  // namespace
}  // namespace xenspan::daemon
