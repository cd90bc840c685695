// Records: written and read back, checked on reading, changed in one transaction.
#include <algorithm>
#include <functional>

#include "tests/unit/xenstore_fixture.h"
#include "xenstore-schema/records.h"
#include "xenstore-schema/schema.h"
#include "xenstore-schema/tree.h"

namespace xenspan::xenstore {
namespace {

constexpr const char* kUuid = "0f9a51b8-3a2c-4d5e-8f70-112233445566";

template <typename T>
class RecordsTest : public StoreTest<T> {};
TYPED_TEST_SUITE(RecordsTest, Backends);

HostRecord host() {
  HostRecord record;
  record.name = "node-1";
  record.state = HostState::kUp;
  record.address = "10.0.0.1";
  record.port = 7411;
  record.cores = 6;
  record.cpus = {0, 1, 2, 3, 8, 10};
  record.memory_total_kib = 25165824;
  record.memory_free_kib = 20000000;
  record.kernel = "6.1.0-18-amd64";
  record.version = "0.1.0";
  record.backend = Backend::kXen;
  record.rdma = "mlx5_0/1";
  record.cpu_features = {"sse4_2", "avx2", "fsgsbase"};
  record.heartbeat = 1700000000;
  record.error = "disk is full";
  return record;
}

DomainRecord domain() {
  DomainRecord record;
  record.uuid = kUuid;
  record.name = "pigz-1";
  record.state = DomainState::kRunning;
  record.home = "node-1";
  record.kind = Backend::kXen;
  record.transport = Transport::kVerbs;
  record.policy = Policy::kLoad;
  record.last_move = "vCPU 1 from host b to host a: b is busy";
  record.memory_kib = 4194304;
  record.vcpus = 4;
  record.user = "alice";
  record.command = "pigz -k big file";
  record.created = 1700000001;
  return record;
}

MemberRecord member() {
  MemberRecord record;
  record.host = "node-2";
  record.state = MemberState::kActive;
  record.vcpus = 2;
  record.error = "was slow";
  return record;
}

Counters counters() {
  Counters counters;
  counters.faults_read = 1;
  counters.faults_write = 2;
  counters.faults_upgrade = 3;
  counters.first_touches = 4;
  counters.bytes_sent = 1ULL << 40;
  counters.bytes_received = UINT64_MAX;
  counters.pages = 7;
  counters.cpu_us = 8;
  counters.threads = 9;
  return counters;
}

TYPED_TEST(RecordsTest, HostComesBack) {
  ASSERT_OK(write_host(this->store(), host()));
  const auto read = read_host(this->other(), "node-1");
  ASSERT_OK(read);
  const HostRecord wrote = host();
  EXPECT_EQ(read->name, wrote.name);
  EXPECT_EQ(read->state, wrote.state);
  EXPECT_EQ(read->address, wrote.address);
  EXPECT_EQ(read->port, wrote.port);
  EXPECT_EQ(read->cores, wrote.cores);
  EXPECT_EQ(read->cpus, wrote.cpus);
  EXPECT_EQ(read->memory_total_kib, wrote.memory_total_kib);
  EXPECT_EQ(read->memory_free_kib, wrote.memory_free_kib);
  EXPECT_EQ(read->kernel, wrote.kernel);
  EXPECT_EQ(read->version, wrote.version);
  EXPECT_EQ(read->backend, wrote.backend);
  EXPECT_EQ(read->rdma, wrote.rdma);
  EXPECT_EQ(read->cpu_features, wrote.cpu_features);
  EXPECT_EQ(read->cpu_features_hash, hash_words(wrote.cpu_features));
  EXPECT_EQ(read->heartbeat, wrote.heartbeat);
  EXPECT_EQ(read->error, wrote.error);
  EXPECT_EQ(read->request, HostRequest::kNone);
  EXPECT_EQ(this->store().read("/tool/xenspan/host/node-1/cpus").value(), "0-3,8,10");
  EXPECT_EQ(this->store().read("/tool/xenspan/host/node-1/backend").value(), "xen");
}

TYPED_TEST(RecordsTest, DomainMemberAndVcpuComeBack) {
  Store& store = this->store();
  ASSERT_OK(write_domain(store, domain()));
  ASSERT_OK(write_member(store, kUuid, member()));
  ASSERT_OK(write_counters(store, kUuid, "node-2", counters()));
  ASSERT_OK(write_vcpu(store, kUuid, {.index = 10, .host = "node-2", .core = 3, .threads = 5}));
  ASSERT_OK(write_vcpu(store, kUuid, {.index = 9, .host = "node-1", .core = 1, .threads = 0}));

  const auto read = read_domain(this->other(), kUuid);
  ASSERT_OK(read);
  const DomainRecord wrote = domain();
  EXPECT_EQ(read->uuid, wrote.uuid);
  EXPECT_EQ(read->name, wrote.name);
  EXPECT_EQ(read->state, wrote.state);
  EXPECT_EQ(read->home, wrote.home);
  EXPECT_EQ(read->kind, wrote.kind);
  EXPECT_EQ(read->transport, wrote.transport);
  EXPECT_EQ(read->memory_kib, wrote.memory_kib);
  EXPECT_EQ(read->vcpus, wrote.vcpus);
  EXPECT_EQ(read->user, wrote.user);
  EXPECT_EQ(read->command, wrote.command);
  EXPECT_EQ(read->exit_status, std::nullopt);
  EXPECT_EQ(read->created, wrote.created);

  EXPECT_EQ(list_members(store, kUuid).value(), (std::vector<std::string>{"node-2"}));
  const auto there = read_member(store, kUuid, "node-2");
  ASSERT_OK(there);
  EXPECT_EQ(there->state, MemberState::kActive);
  EXPECT_EQ(there->vcpus, 2u);
  EXPECT_EQ(there->error, "was slow");
  EXPECT_EQ(there->counters.faults_read, 1u);
  EXPECT_EQ(there->counters.faults_write, 2u);
  EXPECT_EQ(there->counters.faults_upgrade, 3u);
  EXPECT_EQ(there->counters.first_touches, 4u);
  EXPECT_EQ(there->counters.bytes_sent, 1ULL << 40);
  EXPECT_EQ(there->counters.bytes_received, UINT64_MAX);
  EXPECT_EQ(there->counters.pages, 7u);
  EXPECT_EQ(there->counters.cpu_us, 8u);
  EXPECT_EQ(there->counters.threads, 9u);

  EXPECT_EQ(list_vcpus(store, kUuid).value(), (std::vector<uint32_t>{9, 10}));
  const auto vcpu = read_vcpu(store, kUuid, 10);
  ASSERT_OK(vcpu);
  EXPECT_EQ(vcpu->host, "node-2");
  EXPECT_EQ(vcpu->core, 3u);
  EXPECT_EQ(vcpu->threads, 5u);

  EXPECT_EQ(list_domains(store).value(), (std::vector<std::string>{kUuid}));
  ASSERT_OK(remove_domain(store, kUuid));
  EXPECT_TRUE(list_domains(store).value().empty());
  EXPECT_EQ(read_domain(store, kUuid).error().code, ENOENT);
}

TYPED_TEST(RecordsTest, NothingWrittenIsAnEmptyList) {
  EXPECT_TRUE(list_hosts(this->store()).value().empty());
  EXPECT_TRUE(list_domains(this->store()).value().empty());
  EXPECT_TRUE(list_members(this->store(), kUuid).value().empty());
  EXPECT_TRUE(list_vcpus(this->store(), kUuid).value().empty());
}

TYPED_TEST(RecordsTest, EndOfADomain) {
  Store& store = this->store();
  ASSERT_OK(write_domain(store, domain()));
  ASSERT_OK(set_domain_state(store, kUuid, DomainState::kEnded, "", 137));
  EXPECT_EQ(read_domain(store, kUuid)->state, DomainState::kEnded);
  EXPECT_EQ(read_domain(store, kUuid)->exit_status, 137u);
  ASSERT_OK(set_domain_state(store, kUuid, DomainState::kFailed, "lost host b"));
  EXPECT_EQ(read_domain(store, kUuid)->error, "lost host b");
  EXPECT_EQ(read_domain(store, kUuid)->exit_status, std::nullopt);
  EXPECT_EQ(set_domain_state(store, kUuid, DomainState::kEnded, "", 256).error().code, EINVAL);
  // The failed change left no half of itself.
  EXPECT_EQ(read_domain(store, kUuid)->state, DomainState::kFailed);
}

TYPED_TEST(RecordsTest, StateAndErrorChangeTogether) {
  Store& store = this->store();
  ASSERT_OK(write_host(store, host()));
  int half = 0;
  int failed = 0;
  ASSERT_OK(
      store.watch("/tool/xenspan/host/node-1", "t", [&](const std::string&, const std::string&) {
        const auto record = read_host(store, "node-1");
        ASSERT_OK(record);
        if (record->state == HostState::kFailed) ++failed;
        if ((record->state == HostState::kFailed) != (record->error == "no userfaultfd")) ++half;
      }));
  ASSERT_OK(set_host_state(this->other(), "node-1", HostState::kFailed, "no userfaultfd"));
  ASSERT_TRUE(this->process_until([&] { return failed >= 1; }));
  EXPECT_EQ(half, 0);
}

TYPED_TEST(RecordsTest, ChangesNeedTheThing) {
  Store& store = this->store();
  EXPECT_EQ(set_host_state(store, "ghost", HostState::kUp).error().code, ENOENT);
  EXPECT_EQ(set_host_heartbeat(store, "ghost", 1, 1).error().code, ENOENT);
  EXPECT_EQ(request_host(store, "ghost", HostRequest::kDrain).error().code, ENOENT);
  EXPECT_EQ(set_domain_state(store, kUuid, DomainState::kEnded).error().code, ENOENT);
  EXPECT_EQ(request_domain(store, kUuid, DomainRequest::kDestroy).error().code, ENOENT);
  EXPECT_EQ(set_member_state(store, kUuid, "node-2", MemberState::kLeft).error().code, ENOENT);
  EXPECT_EQ(request_member(store, kUuid, "node-2", MemberRequest::kAdd).error().code, ENOENT);
  EXPECT_EQ(request_member(store, kUuid, "node-2", MemberRequest::kDrain).error().code, ENOENT);
  EXPECT_EQ(store.read(paths::kRoot).error().code, ENOENT);
}

TYPED_TEST(RecordsTest, RequestIsKeptByWritesAndClearedWithItsAnswer) {
  Store& store = this->store();
  ASSERT_OK(write_domain(store, domain()));
  ASSERT_OK(write_member(store, kUuid, member()));
  ASSERT_OK(request_member(store, kUuid, "node-2", MemberRequest::kDrain));
  ASSERT_OK(request_member(store, kUuid, "node-3", MemberRequest::kAdd));
  EXPECT_EQ(store.read(paths::member(kUuid, "node-3") + "/request").value(), "add");
  ASSERT_OK(write_member(store, kUuid, member()));
  EXPECT_EQ(read_member(store, kUuid, "node-2")->request, MemberRequest::kDrain);
  ASSERT_OK(store.atomically([](Nodes& nodes) -> Status {
    if (Status s = set_member_state(nodes, kUuid, "node-2", MemberState::kDraining); !s) return s;
    return clear_request(nodes, paths::member(kUuid, "node-2"));
  }));
  const auto there = read_member(store, kUuid, "node-2");
  ASSERT_OK(there);
  EXPECT_EQ(there->state, MemberState::kDraining);
  EXPECT_EQ(there->request, MemberRequest::kNone);
}

TYPED_TEST(RecordsTest, BadValueNamesPathAndType) {
  Store& store = this->store();
  const std::string base = "/tool/xenspan/host/node-1/";
  const struct {
    const char* node;
    const char* value;
    const char* expected;
  } cases[] = {
      {"port", "0", "a number from 1 to 65535"},
      {"port", "65536", "a number from 1 to 65535"},
      {"port", "7411 ", "a number from 1 to 65535"},
      {"port", "", "a number from 1 to 65535"},
      {"cores", "-1", "a number from 0 to 65536"},
      {"state", "UP", "starting, up, draining, down or failed"},
      {"backend", "kvm", "usermode or xen"},
      {"cpus", "0-", "a list of CPUs"},
      {"cpus", "3-1", "a list of CPUs"},
      {"memory-total", "12KiB", "a number"},
      {"heartbeat", "18446744073709551616", "a number"},
      {"cpu-features-hash", "xyz", "16 hexadecimal digits"},
      {"kernel", "one\ntwo", "one line of text"},
      {"request", "explode", "empty, drain or resume"},
  };
  for (const auto& bad : cases) {
    ASSERT_OK(write_host(store, host()));
    ASSERT_OK(store.write(base + bad.node, bad.value));
    const auto read = read_host(store, "node-1");
    ASSERT_FALSE(read) << bad.node << " = " << bad.value;
    EXPECT_EQ(read.error().code, EINVAL);
    EXPECT_NE(read.error().message.find(base + bad.node), std::string::npos)
        << read.error().message;
    EXPECT_NE(read.error().message.find(bad.expected), std::string::npos) << read.error().message;
    ASSERT_OK(store.remove("/tool/xenspan/host/node-1"));
  }
}

TYPED_TEST(RecordsTest, MissingNodeIsNamed) {
  Store& store = this->store();
  ASSERT_OK(write_host(store, host()));
  ASSERT_OK(store.remove("/tool/xenspan/host/node-1/port"));
  const auto read = read_host(store, "node-1");
  ASSERT_FALSE(read);
  EXPECT_NE(read.error().message.find("/tool/xenspan/host/node-1/port is missing"),
            std::string::npos)
      << read.error().message;
  // What an older daemon does not write is not needed.
  ASSERT_OK(write_host(store, host()));
  ASSERT_OK(store.remove("/tool/xenspan/host/node-1/cpu-features"));
  EXPECT_OK(read_host(store, "node-1"));
}

TYPED_TEST(RecordsTest, WritesNothingThatCannotBeRead) {
  Store& store = this->store();
  HostRecord bad = host();
  bad.port = 0;
  EXPECT_EQ(write_host(store, bad).error().code, EINVAL);
  EXPECT_TRUE(list_hosts(store).value().empty());
  bad = host();
  bad.name = "node.example.org";
  EXPECT_EQ(write_host(store, bad).error().code, EINVAL);
  DomainRecord domain_record = domain();
  domain_record.uuid = "../../host";
  EXPECT_EQ(write_domain(store, domain_record).error().code, EINVAL);
  EXPECT_EQ(read_domain(store, "..").error().code, EINVAL);
  domain_record = domain();
  domain_record.home = "a/b";
  EXPECT_EQ(write_domain(store, domain_record).error().code, EINVAL);
}

TYPED_TEST(RecordsTest, LongAndDirtyCommandBecomesOneLine) {
  DomainRecord record = domain();
  record.command = "sh\n-c\x1b[31m " + std::string(5000, 'x');
  ASSERT_OK(write_domain(this->store(), record));
  const auto read = read_domain(this->store(), kUuid);
  ASSERT_OK(read);
  EXPECT_EQ(read->command.size(), kMaxText);
  EXPECT_EQ(read->command.substr(0, 6), "sh -c ");
  EXPECT_TRUE(read->command.ends_with("xxx..."));
}

TYPED_TEST(RecordsTest, OnlyCountersThatHaveChangedAreWritten) {
  Store& store = this->store();
  ASSERT_OK(write_counters(store, kUuid, "node-2", counters()));
  const std::string base = paths::counters(kUuid, "node-2") + "/";
  // Would be overwritten if they were written at all.
  ASSERT_OK(store.write(base + node::kPages, "77"));
  ASSERT_OK(store.write(base + node::kFaultsRead, "78"));
  Counters now = counters();
  ++now.cpu_us;
  ++now.threads;
  const Counters told = counters();
  ASSERT_OK(write_counters(store, kUuid, "node-2", now, &told));
  EXPECT_EQ(store.read(base + node::kCpuUs).value(), std::to_string(now.cpu_us));
  EXPECT_EQ(store.read(base + node::kThreads).value(), std::to_string(now.threads));
  EXPECT_EQ(store.read(base + node::kPages).value(), "77");
  EXPECT_EQ(store.read(base + node::kFaultsRead).value(), "78");
  ASSERT_OK(write_counters(store, kUuid, "node-2", now));
  EXPECT_EQ(store.read(base + node::kPages).value(), std::to_string(now.pages));
}

TYPED_TEST(RecordsTest, EveryWrittenNodeIsInTheSchemaAndEveryNodeOfTheSchemaIsWritten) {
  Store& store = this->store();
  DomainRecord ended = domain();
  ended.exit_status = 0;
  ASSERT_OK(write_host(store, host()));
  ASSERT_OK(request_host(store, "node-1", HostRequest::kDrain));
  ASSERT_OK(write_domain(store, ended));
  ASSERT_OK(request_domain(store, kUuid, DomainRequest::kDestroy));
  ASSERT_OK(write_member(store, kUuid, member()));
  ASSERT_OK(request_member(store, kUuid, "node-2", MemberRequest::kDrain));
  ASSERT_OK(write_counters(store, kUuid, "node-2", counters()));
  ASSERT_OK(write_vcpu(store, kUuid, {.index = 0, .host = "node-2", .core = 3, .threads = 5}));
  // An admin's, but for the error.
  for (const char* name :
       {"config", "hosts", "vcpu/0/host", "vcpu/0/cpu", "encrypt", "hold-us", "error"})
    ASSERT_OK(store.write(paths::config(kUuid) + "/" + name, "1"));

  std::vector<std::string> leaves;
  const std::function<void(const std::string&)> walk = [&](const std::string& path) {
    const auto names = store.list(path);
    ASSERT_OK(names);
    if (names->empty()) leaves.push_back(path);
    for (const std::string& name : *names) walk(path + "/" + name);
  };
  walk(paths::kRoot);
  for (const std::string& leaf : leaves) EXPECT_NE(find_in_schema(leaf), nullptr) << leaf;
  for (const SchemaNode& row : schema()) {
    const bool written = std::any_of(leaves.begin(), leaves.end(), [&](const std::string& leaf) {
      return find_in_schema(leaf) == &row;
    });
    EXPECT_TRUE(written) << row.path;
  }
}

}  // namespace
}  // namespace xenspan::xenstore
