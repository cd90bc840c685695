// A domain declared as spanning, and peers that cannot or will not hold a slice of it: it runs on
// fewer hosts, or at home alone, with every reason in its record and in the log. The hosts are
// clusters of this process, their facts what the test says; Xen and the slices are stand-ins.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/log.h"
#include "dom0-daemon/daemon/xen_domains.h"
#include "tests/unit/free_port.h"
#include "xenstore-schema/memory_store.h"

namespace xenspan::daemon {
namespace {

using testing::HasSubstr;

constexpr char kUuid[] = "0f1e2d3c-0000-4000-8000-000000000001";
constexpr std::uint64_t kMib = 1 << 20;

// One guest with two vCPUs, and what was done to it.
class FakeXen : public XenHost {
 public:
  XenFacts facts() override { return {"4.17", "", 64 * kMib}; }
  Result<std::vector<XenGuest>> guests() override { return std::vector<XenGuest>{*guest(1)}; }
  Result<XenGuest> guest(unsigned) override { return XenGuest{1, kUuid, false, false, 0, 2}; }
  std::string guest_problem(unsigned) override { return ""; }
  std::uint64_t vcpus_up(const XenGuest&) override { return 3; }
  Status pause(unsigned) override { return ++pauses, Status(); }
  Status unpause(unsigned) override { return {}; }
  Status shut_down(unsigned, unsigned) override { return {}; }
  int pauses = 0;
};

class NoLinks : public SliceLinks {
 public:
  Status create_slice(const std::string& host, const std::string&, const User&, Json,
                      std::vector<UniqueFd>, std::uint64_t) override {
    created.push_back(host);
    return {};
  }
  void send_to_slice(const std::string&, const std::string&, const Json&) override {}
  void set_slice_cores(const std::string&, const std::string&, const std::vector<int>&) override {}
  void stop_slice(const std::string&, const std::string&, const std::string&) override {}
  std::vector<std::string> bound_here(const std::string&) const override { return {}; }
  void name_heir(const std::string&, const std::string&, const std::string&) override {}
  void claim_slice(const std::string&, const std::string&) override {}
  void follow(const std::string&, const std::string&) override {}
  std::vector<std::string> created;
};

class NoVotes : public Votes {
 public:
  bool counts(const std::string&, int) const override { return false; }
  Json standing(const std::string&) const override { return nullptr; }
  void join(const std::string&, int) override {}
  void leave(const std::string&, int, bool) override {}
  void give_home(const std::string&, int) override {}
  int home_of(const std::string&) const override { return -1; }
};

std::unique_ptr<TlsContext> same_key() {
  ClusterKey key;
  key.bytes.fill(1);
  auto tls = TlsContext::make(key);
  EXPECT_TRUE(tls);
  return std::move(*tls);
}

// A peer: makes a slice when it is asked, or says why not.
class Peer : public Cluster::Handler {
 public:
  Peer(EventLoop& loop, HostRecord record, std::uint16_t home, std::string refusal)
      : refusal_(std::move(refusal)) {
    config_.name = record.name;
    config_.port = record.port;
    config_.peers.push_back({"a", "127.0.0.1", home});
    cluster_ = std::make_unique<Cluster>(loop, same_key(), config_, *this);
    cluster_->set_record(record);
    EXPECT_TRUE(cluster_->start());
  }
  void host_joined(const HostRecord&) override {}
  void host_changed(const HostRecord&) override {}
  void host_lost(const std::string&, const std::string&) override {}
  void host_message(const std::string& home, Json message) override {
    if (text_or(message, "op", "") != "xen-slice-make") return;
    if (refusal_.empty())
      cluster_->send(home, {{"op", "xen-slice-made"}, {"uuid", kUuid}, {"domain", 7}});
    else
      cluster_->send(home, {{"op", "xen-slice-refused"}, {"uuid", kUuid}, {"error", refusal_}});
  }

 private:
  Config config_;
  const std::string refusal_;
  std::unique_ptr<Cluster> cluster_;
};

class XenRefusals : public testing::Test, public Cluster::Handler {
 protected:
  XenRefusals() {
    char folder[] = "/tmp/xenspan-refusal.XXXXXX";
    folder_ = ::mkdtemp(folder);
    config_.name = "a";
    config_.port = free_port();
    config_.domains = folder_;
    config_.lost_after = std::chrono::seconds(60);
    std::ofstream(folder_ + "/wide.cfg") << "name = \"wide\"\n";
    EXPECT_TRUE(store_.write("/local/domain/1/name", "wide"));
    EXPECT_TRUE(store_.write("/local/domain/1/memory/static-max", std::to_string(32 << 10)));
  }
  ~XenRefusals() override { std::filesystem::remove_all(folder_); }

  HostRecord able(const std::string& name) const {
    HostRecord record;
    record.name = name;
    record.address = "127.0.0.1";
    record.port = name == "a" ? config_.port : free_port();
    record.version = "test";
    record.cores = {0};
    record.core_use = {0};
    record.cpu.fill(0xffffffff);
    record.xen = {"4.17", "", 64 * kMib};
    return record;
  }
  void peer(const HostRecord& record, const std::string& refusal = "") {
    config_.peers.push_back({record.name, "127.0.0.1", record.port});
    peers_.push_back(std::make_unique<Peer>(loop_, record, config_.port, refusal));
  }
  // Until the domain's fate is known; what was logged.
  std::string run(const std::string& hosts) {
    std::ofstream(folder_ + "/wide.json")
        << R"({"name": "wide", "config": ")" << folder_ << R"(/wide.cfg", "hosts": [)" << hosts
        << R"(], "vcpus": [{}, {"host": )" << hosts.substr(0, hosts.find(',')) << "}]}";
    cluster_ = std::make_unique<Cluster>(loop_, same_key(), config_, *this);
    cluster_->set_record(able("a"));
    EXPECT_TRUE(cluster_->start());
    table_ = std::make_unique<DomainTable>(loop_, config_, *cluster_, links_, votes_);
    domains_ = std::make_unique<XenDomains>(config_, *cluster_, *table_, xen_,
                                            [this] { return able("a"); });
    domains_->set_store(&store_);
    testing::internal::CaptureStderr();
    domains_->look();
    int ticks = 0;
    const Timer look(
        loop_, std::chrono::milliseconds(100),
        [&] {
          domains_->tick();
          const DomainRecord* record = table_->record(kUuid);
          if (table_->own(kUuid) != nullptr || ++ticks == 600 ||
              (record != nullptr && record->state == xenstore::DomainState::kRunning))
            loop_.stop();
        },
        /*repeat=*/true);
    loop_.run();
    return testing::internal::GetCapturedStderr();
  }
  const DomainRecord& record() const { return *table_->record(kUuid); }
  std::string member_error(const std::string& host) const {
    for (const DomainMember& member : record().members)
      if (member.host == host && member.state == xenstore::MemberState::kFailed)
        return member.error;
    return "none";
  }

  void host_joined(const HostRecord&) override {}
  void host_changed(const HostRecord&) override {}
  void host_lost(const std::string&, const std::string&) override {}
  void host_message(const std::string& host, Json message) override {
    domains_->handle(host, text_or(message, "op", ""), message);
  }

  EventLoop loop_;
  Config config_;
  std::string folder_;
  xenstore::MemoryStore store_;
  FakeXen xen_;
  NoLinks links_;
  NoVotes votes_;
  std::vector<std::unique_ptr<Peer>> peers_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<DomainTable> table_;
  std::unique_ptr<XenDomains> domains_;
};

TEST_F(XenRefusals, EachReasonIsTold) {
  HostRecord amd = able("b"), old = able("c"), full = able("d"), plain = able("e"),
             lean = able("f");
  amd.xen.problem =
      "this host has an AMD processor, and Xen has mem_access on Intel processors only";
  old.xen.version = "4.16";
  full.xen.free_memory = 31 * kMib;
  plain.xen = {};
  lean.cpu[0] &= ~(1U << 28);
  for (const HostRecord& record : {amd, old, full, plain, lean}) peer(record);
  peer(able("g"), "host g cannot make a slice: xl says no");
  const std::string log = run(R"("b", "c", "d", "e", "f", "g", "h")");

  const std::pair<const char*, const char*> reasons[] = {
      {"b", "host b: this host has an AMD processor"},
      {"c", "host c runs Xen 4.16 and host a runs Xen 4.17: install the same on both"},
      {"d",
       "host d has 31 MiB of memory that Xen could give to a domain, and the domain has 32 MiB"},
      {"e", "host e runs no Xen"},
      {"f", "host f's processors lack avx: "},
      {"g", "host g cannot make a slice: xl says no"},
      {"h", "host h is not known here: name it in xenspand.conf as a peer"}};
  EXPECT_EQ(record().state, xenstore::DomainState::kRunning);
  EXPECT_THAT(record().error, testing::StartsWith("runs on its home alone: "));
  for (const auto& [host, why] : reasons) {
    EXPECT_THAT(record().error, HasSubstr(why));
    EXPECT_THAT(member_error(host), HasSubstr(why));
    EXPECT_THAT(log, HasSubstr(fmt::format("does without host {}: {}", host, why)));
  }
  EXPECT_THAT(log, HasSubstr("runs on host a alone"));
  EXPECT_EQ(xen_.pauses, 0);
  EXPECT_TRUE(links_.created.empty());
}

TEST_F(XenRefusals, TheOthersAreSpannedOver) {
  HostRecord full = able("b");
  full.xen.free_memory = 0;
  peer(full);
  peer(able("c"));
  const std::string log = run(R"("c", "b")");
  ASSERT_NE(table_->own(kUuid), nullptr);
  EXPECT_EQ(links_.created, (std::vector<std::string>{"a", "c"}));
  EXPECT_THAT(record().error, testing::StartsWith("runs on fewer hosts: host b has 0 MiB"));
  EXPECT_THAT(log, HasSubstr("does without host b: host b has 0 MiB"));
}

}  // namespace
}  // namespace xenspan::daemon
