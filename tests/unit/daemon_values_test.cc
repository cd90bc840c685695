// Names, sizes, JSON fields, configuration, CPU features: what turns text from outside into values.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "config.h"
#include "dom0-daemon/daemon/cpu_features.h"
#include "dom0-daemon/daemon/daemon_config.h"
#include "dom0-daemon/daemon/domain_record.h"
#include "dom0-daemon/daemon/frame_blocks.h"
#include "dom0-daemon/daemon/host_record.h"
#include "dom0-daemon/daemon/json_fields.h"
#include "dom0-daemon/daemon/names.h"
#include "dom0-daemon/daemon/size_text.h"

namespace xenspan::daemon {
namespace {

TEST(Names, AlphabetIsWhatXenstoreAndDirectoriesTake) {
  EXPECT_TRUE(is_host_name("a"));
  EXPECT_TRUE(is_host_name("node-12_B"));
  for (const char* bad : {"", "-a", "a.b", "a/b", "..", "a b", "a\n"})
    EXPECT_FALSE(is_host_name(bad)) << bad;
  EXPECT_TRUE(is_host_name(std::string(63, 'x')));
  EXPECT_FALSE(is_host_name(std::string(64, 'x')));
}

TEST(Names, RandomUuidsAreValidAndDiffer) {
  const std::string one = random_uuid();
  EXPECT_TRUE(is_uuid(one)) << one;
  EXPECT_EQ(one[14], '4');
  EXPECT_NE(one, random_uuid());
  EXPECT_FALSE(is_uuid("../../../../../../../../../../etc/pass"));
  EXPECT_FALSE(is_uuid(one + "0"));
}

TEST(Sizes, SuffixesArePowersOf1024) {
  EXPECT_EQ(parse_size("0", "x").value(), 0u);
  EXPECT_EQ(parse_size("65536", "x").value(), 65536u);
  EXPECT_EQ(parse_size("512M", "x").value(), 512u << 20);
  EXPECT_EQ(parse_size("4g", "x").value(), std::uint64_t{4} << 30);
  EXPECT_EQ(parse_size("2KiB", "x").value(), 2048u);
  for (const char* bad :
       {"", "lots", "-1", "1.5G", "1GG", "1 G", "99999999999T", "18446744073709551616"}) {
    const auto size = parse_size(bad, "--memory");
    ASSERT_FALSE(size.ok()) << bad;
    EXPECT_NE(size.error().message.find("--memory"), std::string::npos);
  }
}

TEST(Sizes, TextIsShort) {
  EXPECT_EQ(size_text(12), "12");
  EXPECT_EQ(size_text(1536), "1.5K");
  EXPECT_EQ(size_text(std::uint64_t{4} << 30), "4G");
  EXPECT_EQ(size_text((std::uint64_t{1} << 30) - 1), "1G");
}

TEST(Fields, WrongTypesReadAsMissing) {
  const auto object =
      parse_object(R"({"n": 5, "neg": -1, "f": 1.5, "s": "x", "l": ["a", 1], "b": true})");
  ASSERT_TRUE(object.ok());
  EXPECT_EQ(number_field(*object, "n"), 5u);
  EXPECT_FALSE(number_field(*object, "neg"));
  EXPECT_FALSE(number_field(*object, "f"));
  EXPECT_FALSE(number_field(*object, "s"));
  EXPECT_FALSE(text_field(*object, "n"));
  EXPECT_FALSE(texts_field(*object, "l"));
  EXPECT_TRUE(flag_field(*object, "b"));
  EXPECT_FALSE(flag_field(*object, "n"));
  // A number set by our own code is a signed one.
  EXPECT_EQ(number_field(Json{{"port", 80}}, "port"), 80u);
  for (const char* bad : {"", "[]", "5", "{", "{\"a\":}", "{} {}"})
    EXPECT_FALSE(parse_object(bad).ok()) << bad;
}

// Text of a peer: what recurses over a value later must not run out of stack.
TEST(Json, NestingHasALimit) {
  const auto nested = [](std::size_t levels) {
    return "{\"a\":" + std::string(levels, '[') + std::string(levels, ']') + "}";
  };
  ASSERT_TRUE(parse_object(nested(20)).ok());
  EXPECT_EQ(to_line(*parse_object(nested(20))), nested(20));
  EXPECT_FALSE(parse_object(nested(33)).ok());
  EXPECT_FALSE(parse_object(nested(1'000'000)).ok());
  EXPECT_FALSE(parse_object("{\"a\":" + std::string(1'000'000, '[')).ok());
}

TEST(Fields, Utf8IsRecognised) {
  for (const char* good : {"", "abc", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"})
    EXPECT_TRUE(is_utf8(good)) << good;
  for (const char* bad : {"\xe4", "\xc3", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80",
                          "\xf4\x90\x80\x80", "\xff", "a\x80"})
    EXPECT_FALSE(is_utf8(bad));
}

class FrameBlocksTest : public ::testing::Test {
 protected:
  // What the kernel's file says while a daemon runs, and after it, if it said `before`.
  std::pair<std::string, std::string> during_and_after(const std::string& before) {
    std::ofstream(file_) << before;
    std::string during;
    {
      FrameBlocks blocks;
      blocks.allow(folder_);
      during = text();
    }
    return {during, text()};
  }
  void SetUp() override {
    ASSERT_NE(mkdtemp(folder_), nullptr);
    file_ = std::string(folder_) + "/hugepages-32kB";
    std::filesystem::create_directory(file_);
    file_ += "/shmem_enabled";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  char folder_[32] = "/tmp/xenspan-test-XXXXXX";
  std::string file_;

 private:
  std::string text() const {
    std::string line;
    std::getline(std::ifstream(file_) >> std::ws, line);
    return line;
  }
};

TEST_F(FrameBlocksTest, AreAllowedWhileADaemonRuns) {
  EXPECT_EQ(during_and_after("always inherit within_size advise [never]\n"),
            std::make_pair(std::string("advise"), std::string("never")));
}

TEST_F(FrameBlocksTest, WhatAnAdminHasChosenStays) {
  for (const std::string choice : {"[always] inherit within_size advise never",
                                   "always inherit within_size [advise] never", ""})
    EXPECT_EQ(during_and_after(choice), std::make_pair(choice, choice));
}

TEST_F(FrameBlocksTest, AnOlderKernelHasNone) {
  FrameBlocks blocks;
  blocks.allow(std::string(folder_) + "/nothing");
  EXPECT_FALSE(std::filesystem::exists(std::string(folder_) + "/nothing"));
}

TEST(ConfigFile, SetsEveryKind) {
  Config config;
  const Status read = read_config(
      config,
      "# a comment\nname = node1\naddress = 10.0.0.1\n port=9000 # here\n"
      "cpus = 0-2,5\nmemory = 16G\nencrypt = true\nlost-after = 7\nstart-within = 90\n"
      "frame-blocks = false\npeer = b=10.0.0.2\npeer = c=[fe80::1]:8000, d=10.0.0.4:1\nkey = /k\n"
      "transport = verbs\nrdma-device = mlx5_0\nrdma-port = 2\nrdma-gid-index = 3\n"
      "rdma-service-level = 4\nrdma-traffic-class = 106\n",
      "f");
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(config.name, "node1");
  EXPECT_EQ(config.port, 9000);
  EXPECT_EQ(config.cpus, (std::vector<int>{0, 1, 2, 5}));
  EXPECT_EQ(config.memory, std::uint64_t{16} << 30);
  EXPECT_TRUE(config.encrypt);
  EXPECT_FALSE(config.frame_blocks);
  EXPECT_EQ(config.lost_after, std::chrono::seconds(7));
  EXPECT_EQ(config.start_within, std::chrono::seconds(90));
  ASSERT_EQ(config.peers.size(), 3u);
  EXPECT_EQ(config.peers[0].port, kDefaultPort);
  EXPECT_EQ(config.peers[1].address, "fe80::1");
  EXPECT_EQ(config.peers[1].port, 8000);
  EXPECT_EQ(config.peers[2].name, "d");
  EXPECT_EQ(config.transport, TransportWish::kVerbs);
  EXPECT_EQ(to_json(config.rdma), (Json{{"device", "mlx5_0"},
                                        {"port", 2},
                                        {"gid_index", 3},
                                        {"service_level", 4},
                                        {"traffic_class", 106}}));
}

TEST(ConfigFile, ErrorsNameFileLineAndKey) {
  const std::pair<const char*, const char*> cases[] = {
      {"port = 0", "port"},
      {"port = 70000", "port"},
      {"address = host.example", "address"},
      {"cpus = 3-1", "cpus"},
      {"cpus = a", "cpus"},
      {"memory = lots", "memory"},
      {"encrypt = yes", "encrypt"},
      {"frame-blocks = 1", "frame-blocks"},
      {"peer = b", "peer"},
      {"peer = b=10.0.0.2:", "peer"},
      {"lost-after = 0", "lost"},
      {"start-within = 3601", "start-within"},
      {"key = relative", "key"},
      {"transport = rdma", "tcp, verbs or auto"},
      {"rdma-device = ../x", "rdma-device"},
      {"rdma-port = 0", "rdma-port"},
      {"rdma-gid-index = 256", "rdma-gid-index"},
      {"rdma-service-level = 16", "0 to 15"},
      {"rdma-traffic-class = -1", "0 to 255"},
      {"colour = red", "colour"},
      {"just words", "key = value"},
      {"name = a.b", "name"},
  };
  for (const auto& [line, word] : cases) {
    Config config;
    const Status read = read_config(config, std::string("\n") + line + "\n", "my.conf");
    ASSERT_FALSE(read.ok()) << line;
    EXPECT_EQ(read.error().message.rfind("my.conf:2: ", 0), 0u) << read.error().message;
    EXPECT_NE(read.error().message.find(word), std::string::npos) << read.error().message;
  }
}

TEST(ConfigFile, CompleteRefusesCoresThatAreNotThere) {
  Config config;
  config.cpus = {1023};
  const Status complete = complete_config(config);
  ASSERT_FALSE(complete.ok());
  EXPECT_NE(complete.error().message.find("1023"), std::string::npos);
}

TEST(CpuFeatures, RoundTripAndDifference) {
  const CpuFeatures own = local_cpu_features();
  EXPECT_EQ(parse_cpu_features(cpu_features_text(own)), own);
  EXPECT_EQ(missing_features(own, own), "");
  CpuFeatures less = own;
  less[1] &= ~(1u << 26);  // leaf 1 EDX bit 26: sse2, which every x86-64 CPU has
  EXPECT_EQ(missing_features(own, less), "sse2");
  EXPECT_EQ(missing_features(less, own), "");
  EXPECT_FALSE(parse_cpu_features("12345678"));
  EXPECT_FALSE(parse_cpu_features(std::string(80, 'g')));
}

HostRecord some_host() {
  HostRecord record;
  record.name = "b";
  record.address = "10.0.0.2";
  record.port = 8117;
  record.version = "0.1.0";
  record.cores = {0, 1};
  record.core_use = {2, 0};
  record.memory = 1000;
  record.memory_used = 400;
  record.cpu = local_cpu_features();
  record.rdma = {"mlx5_0/1", "ethernet", ""};
  return record;
}

TEST(HostRecords, RoundTripAndRefusal) {
  const auto back = host_record_from(to_json(some_host()));
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(to_json(*back), to_json(some_host()));
  EXPECT_EQ(back->vcpus(), 2);
  EXPECT_EQ(back->memory_free(), 600u);
  const std::pair<const char*, Json> changes[] = {
      {"name", "../x"},
      {"name", 5},
      {"address", "b.example"},
      {"port", 0},
      {"port", 65536},
      {"cores", Json::array()},
      {"cores", {1, -2}},
      {"core_use", {1}},
      {"cpu", "xyz"},
      {"version", ""},
      {"cores", std::vector<int>(5000)},
  };
  for (const auto& [key, value] : changes) {
    Json object = to_json(some_host());
    object[key] = value;
    EXPECT_FALSE(host_record_from(object).ok()) << key << " " << value;
  }
}

// A host without a device is one; so is a host that announces nonsense.
TEST(HostRecords, RdmaIsAnnouncedOrMissingWithAReason) {
  HostRecord record = some_host();
  record.rdma = {"", "", "it has no RDMA device: load the device's driver"};
  EXPECT_EQ(host_record_from(to_json(record))->rdma, record.rdma);
  for (const Json& bad : {Json(5), Json::object(), Json{{"device", "a b"}, {"link", "ethernet"}},
                          Json{{"device", "mlx5_0/1"}, {"link", "carrier pigeon"}}}) {
    Json object = to_json(record);
    object["rdma"] = bad;
    const auto read = host_record_from(object);
    ASSERT_TRUE(read.ok());
    EXPECT_FALSE(read->rdma.usable()) << bad;
    EXPECT_FALSE(read->rdma.problem.empty()) << bad;
  }
}

// /sys/class/infiniband as the kernel has it, with what a test wants in it.
class RdmaDevices : public ::testing::Test {
 protected:
  RdmaDevices() { root_ = mkdtemp(name_); }
  ~RdmaDevices() override { std::filesystem::remove_all(root_); }
  void port(const std::string& port, const char* state, const char* link, const char* gid) {
    const std::string folder = root_ + "/" + port;
    std::filesystem::create_directories(folder + "/gids");
    std::ofstream(folder + "/state") << state << "\n";
    std::ofstream(folder + "/link_layer") << link << "\n";
    std::ofstream(folder + "/gids/0") << "0000:0000:0000:0000:0000:0000:0000:0000\n";
    std::ofstream(folder + "/gids/1") << gid << "\n";
  }
  RdmaPort find(const char* address, const RdmaWish& wish = {}) const {
    return find_rdma_port(wish, address, root_);
  }

 private:
  char name_[32] = "/tmp/xenspan-test.XXXXXX";
  std::string root_;
};

TEST_F(RdmaDevices, AreFoundByTheHostsAddress) {
#ifndef HAVE_VERBS
  GTEST_SKIP() << "built without RDMA";
#endif
  EXPECT_NE(find("10.0.0.2").problem.find("no RDMA device"), std::string::npos);
  port("roce_0/ports/1", "4: ACTIVE", "Ethernet", "0000:0000:0000:0000:0000:ffff:0a00:0001");
  port("roce_1/ports/2", "4: ACTIVE", "Ethernet", "0000:0000:0000:0000:0000:ffff:0a00:0002");
  port("roce_2/ports/1", "4: ACTIVE", "Ethernet", "fe80:0000:0000:0000:0000:0000:0000:0007");
  EXPECT_EQ(find("10.0.0.2"), (RdmaPort{"roce_1/2", "ethernet", ""}));
  EXPECT_EQ(find("fe80::7"), (RdmaPort{"roce_2/1", "ethernet", ""}));
  const RdmaPort none = find("192.0.2.1");
  EXPECT_FALSE(none.usable());
  for (const char* word : {"192.0.2.1", "roce_0, roce_1, roce_2", "xenspand.conf"})
    EXPECT_NE(none.problem.find(word), std::string::npos) << none.problem;

  RdmaWish wish;
  wish.device = "roce_0";
  wish.gid_index = 1;
  EXPECT_EQ(find("192.0.2.1", wish).device, "roce_0/1") << "named: whatever the address";
  wish.gid_index = 0;
  EXPECT_FALSE(find("192.0.2.1", wish).usable()) << "an empty GID";
  wish.device = "roce_9";
  EXPECT_NE(find("10.0.0.2", wish).problem.find("roce_9"), std::string::npos);
}

TEST_F(RdmaDevices, MustBeActive) {
#ifndef HAVE_VERBS
  GTEST_SKIP() << "built without RDMA";
#endif
  port("roce_0/ports/1", "1: DOWN", "Ethernet", "0000:0000:0000:0000:0000:ffff:0a00:0001");
  EXPECT_NE(find("10.0.0.1").problem.find("not active"), std::string::npos);
  // InfiniBand: the first port that is up, since no GID is an address.
  port("ib_0/ports/1", "1: DOWN", "InfiniBand", "fe80:0000:0000:0000:0002:c903:0000:0001");
  port("ib_0/ports/2", "4: ACTIVE", "InfiniBand", "fe80:0000:0000:0000:0002:c903:0000:0002");
  EXPECT_EQ(find("10.0.0.9"), (RdmaPort{"ib_0/2", "infiniband", ""}));
  RdmaWish wish;
  wish.device = "ib_0";
  wish.port = 1;
  EXPECT_NE(find("10.0.0.9", wish).problem.find("not active"), std::string::npos);
}

TEST(DomainRecords, RoundTripAndRefusal) {
  DomainRecord record;
  record.uuid = random_uuid();
  record.name = "job";
  record.home = "a";
  record.state = xenstore::DomainState::kRunning;
  record.exit_status = 3;
  record.transport = xenstore::Transport::kVerbs;
  DomainMember member;
  member.host = "a";
  member.vcpus = 2;
  member.counters.faults_read = 17;
  record.members = {member};
  record.vcpus = {{"a", 0, 3}, {"a", 1}};
  const auto back = domain_record_from(to_json(record));
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(to_json(*back), to_json(record));
  EXPECT_EQ(back->members[0].counters.faults_read, 17u);
  EXPECT_EQ(back->threads(), (std::vector<std::uint32_t>{3, 0}));
  record.set_threads({4, 5});
  EXPECT_EQ(record.threads(), (std::vector<std::uint32_t>{4, 5}));
  record.set_threads({1, 2, 3});
  EXPECT_EQ(record.threads(), (std::vector<std::uint32_t>{4, 5})) << "numbers of other vCPUs";
  const std::pair<const char*, Json> changes[] = {
      {"uuid", "x"},
      {"name", "a/b"},
      {"home", ""},
      {"state", "asleep"},
      {"transport", "pigeon"},
      {"uid", -1},
      {"exit_status", 256},
      {"members", Json()},
      {"members", {{{"host", "/"}}}},
      {"vcpus", {{{"host", "a"}, {"core", 1 << 20}}}},
  };
  for (const auto& [key, value] : changes) {
    Json object = to_json(record);
    object[key] = value;
    EXPECT_FALSE(domain_record_from(object).ok()) << key << " " << value;
  }
}

}  // namespace
}  // namespace xenspan::daemon
