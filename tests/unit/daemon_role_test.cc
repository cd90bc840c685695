// The home's role moves: what the old home's daemon orders, from whom, in which order, and what it
// does when something fails; and what the heir's daemon goes on with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/domain_stand_ins.h"

namespace xenspan::daemon {
namespace {

using testing::HasSubstr;
using State = xenstore::MemberState;
using Words = std::vector<std::string>;

HostRecord host_named(const std::string& name) {
  HostRecord host;
  host.name = name;
  host.address = "10.0.0.1";
  host.version = "0.1.0";
  host.kernel = "6.1";
  host.port = 1;
  host.cores = {0};
  host.core_use = {0};
  host.rdma.problem = "none";
  return host;
}

// Slices that do at once what they are told, and note it: "a hold", "b home 1".
class ObedientSlices : public StandInSlices {
 public:
  explicit ObedientSlices(EventLoop& loop) : loop_(loop) {}
  Status create_slice(const std::string& host, const std::string&, const User&, Json create,
                      std::vector<UniqueFd>, std::uint64_t) override {
    if (running) orders.push_back(host + " create");
    creates[host] = std::move(create);
    tell(host, {{"event", "listening"}, {"port", 1}});
    return {};
  }
  void send_to_slice(const std::string& host, const std::string&, const Json& message) override {
    const std::string op = text_or(message, "op", "");
    std::string order = host + " " + op;
    if (op == "home") order += " " + std::to_string(number_or(message, "host", 99));
    if (running) orders.push_back(order);
    if (op == "peers") tell(host, {{"event", "ready"}});
    if (op == "start") tell(host, {{"event", "running"}});
    if (op == "migrate") tell(host, {{"event", "migrated"}, {"id", message["id"]}});
    if (op == "signal") signalled = host + " " + std::to_string(number_or(message, "signo", 0));
    if (!message.contains("id") || op == "migrate") return;
    Json done{{"event", "done"}, {"id", message["id"]}, {"slots", "0"}};
    if (fails.contains(order)) done["error"] = fails[order];
    if (op == "hold") done["calls"] = calls;
    if (order == "a give-home" && signal != 0) done["signals"] = {signal};
    if (op == "hold" && calls != 0) done["names"] = {"thread 7: read"};
    tell(host, done);
  }
  void stop_slice(const std::string& host, const std::string&, const std::string&) override {
    orders.push_back(host + " stop");
    loop_.later([this, host] {
      SliceEnd end;
      end.wanted = true;
      domain->slice_ended(host, end);
    });
  }
  void name_heir(const std::string& host, const std::string&, const std::string& heir) override {
    orders.push_back(host + " heir " + heir);
    loop_.later([this, host] { domain->heir_known(host); });
  }

  Domain* domain = nullptr;
  bool running = false;
  int signal = 0;  // that comes while a gives its state away
  std::string signalled;
  unsigned calls = 0;  // under way, that nothing interrupts
  std::map<std::string, std::string> fails;
  Words orders;
  std::map<std::string, Json> creates;

 private:
  void tell(const std::string& host, Json event) {
    loop_.later([this, host, event = std::move(event)] { domain->slice_event(host, event); });
  }
  EventLoop& loop_;
};

// Hosts a (the home) and b, or a, b and c; a vCPU on each.
class Role : public testing::Test {
 protected:
  void run(unsigned hosts) {
    DomainSpec spec;
    spec.uuid = kUuid;
    spec.name = "wide";
    spec.user.name = "root";
    spec.transport = xenstore::Transport::kTcp;
    spec.argv = {"program"};
    spec.stats_host = "a";
    for (unsigned i = 0; i < hosts; ++i) {
      const std::string name(1, static_cast<char>('a' + i));
      household_.hosts[name] = host_named(name);
      spec.placement.hosts.push_back(host_named(name));
      spec.placement.vcpus.push_back({static_cast<int>(i), 0});
    }
    household_.hosts.erase("a");  // this one
    domain_ = std::make_unique<Domain>(loop_, slices_, household_, std::move(spec));
    slices_.domain = domain_.get();
    domain_->start();
    spin([this] { return domain_->record().state == xenstore::DomainState::kRunning; });
    slices_.running = true;
  }
  // Until it is so, or a minute has passed.
  template <typename Condition>
  void spin(Condition over) {
    const Timer look(
        loop_, std::chrono::milliseconds(1),
        [&] {
          if (over()) loop_.stop();
        },
        /*repeat=*/true);
    const Timer limit(loop_, std::chrono::seconds(60), [this] { loop_.stop(); });
    if (!HasFailure()) loop_.run();
    EXPECT_TRUE(over());
  }
  State state(const std::string& host) const {
    return domain_->membership().members().at(host).state;
  }
  const std::string& error(const std::string& host) const {
    return domain_->membership().members().at(host).error;
  }
  bool told(const std::string& order) const {
    return std::find(slices_.orders.begin(), slices_.orders.end(), order) != slices_.orders.end();
  }
  // From the first one on.
  Words orders_from(const std::string& order) const {
    return {std::find(slices_.orders.begin(), slices_.orders.end(), order), slices_.orders.end()};
  }
  void rests() {
    spin([this] { return domain_->membership().step() == Membership::Step::kNone; });
  }

  EventLoop loop_;
  ObedientSlices slices_{loop_};
  Household household_;
  std::unique_ptr<Domain> domain_;
};

TEST_F(Role, GoesToTheHeirWhenNobodyCallsAnyMore) {
  run(3);
  domain_->ask_member("a", "drain");
  EXPECT_EQ(household_.answers, Words{"ok"});
  spin([this] { return household_.on_taken != nullptr; });
  EXPECT_EQ(household_.given_to, "b");
  EXPECT_EQ(slices_.creates["b"]["heir"], true);
  EXPECT_EQ(slices_.creates["b"]["home"], 0);
  const Words expected{"a hold",   "b hold",   "c hold",    "a give-home", "a home 1",
                       "c home 1", "b home 1", "a release", "b release",   "c release",
                       "a heir b", "b heir b", "c heir b"};
  EXPECT_EQ(orders_from("a hold"), expected);
  EXPECT_EQ(household_.home, 1) << "the second vote goes with it";
  for (const DomainVcpu& vcpu : domain_->record().vcpus) EXPECT_NE(vcpu.host, "a");
  household_.on_taken({});
  EXPECT_TRUE(household_.gone);
  EXPECT_EQ(domain_->record().home, "b");
  // What comes late is nobody's any more.
  domain_->slice_event("b", {{"event", "exited"}, {"status", 0}});
  EXPECT_EQ(domain_->record().state, xenstore::DomainState::kRunning);
}

TEST_F(Role, TheHeirGoesOnAndTheOldHomeLeaves) {
  run(3);
  domain_->ask_member("a", "remove");
  spin([this] { return household_.on_taken != nullptr; });
  const auto state = role_state_from(household_.given, "b");
  ASSERT_TRUE(state) << state.error().message;
  EXPECT_EQ(state->stats_host, "a");
  household_.hosts.erase("b");
  household_.hosts["a"] = host_named("a");
  domain_ = std::make_unique<Domain>(loop_, slices_, household_, *state);
  slices_.domain = domain_.get();
  slices_.orders.clear();
  domain_->take_role();
  rests();
  const Words expected{"a drain",  "b forget-home", "c forget-home", "a slots", "b settle",
                       "c settle", "a forget-home", "a drain",       "a slots", "b settle",
                       "c settle", "b remove-peer", "c remove-peer", "a stop"};
  EXPECT_EQ(slices_.orders, expected);
  for (const char* host : {"a", "b", "c"}) EXPECT_EQ(slices_.told[host].back(), "claimed");
  EXPECT_FALSE(domain_->membership().members().contains("a"));
  EXPECT_EQ(domain_->record().home, "b");
  EXPECT_EQ(domain_->record().former_homes, Words{"a"});
  // It joins anew as any other host; no host has the untouched pages.
  domain_->ask_member("a", "add");
  rests();
  EXPECT_EQ(slices_.creates["a"]["home"], 1);
  EXPECT_EQ(slices_.creates["a"]["engine_home"], -1);
  EXPECT_FALSE(slices_.creates["a"].contains("heir"));
  // The program's end comes from the new home's slice.
  domain_->slice_event("c", {{"event", "exited"}, {"status", 1}});
  EXPECT_FALSE(domain_->stopping());
  domain_->slice_event("b", {{"event", "exited"}, {"status", 5}});
  spin([this] { return domain_->outcome().status == 5 && domain_->stopping(); });
}

TEST_F(Role, ASignalThatComesMeanwhileIsForTheNewHome) {
  run(2);
  slices_.signal = 15;
  domain_->ask_member("a", "drain");
  spin([this] { return household_.on_taken != nullptr; });
  EXPECT_EQ(slices_.signalled, "b 15");
}

TEST_F(Role, StaysWhereACallDoesNotEnd) {
  run(2);
  slices_.calls = 1;
  domain_->ask_member("a", "drain");
  rests();
  EXPECT_EQ(state("a"), State::kActive);
  EXPECT_EQ(state("b"), State::kActive);
  EXPECT_THAT(error("a"), HasSubstr("in calls that nothing interrupts: thread 7: read"));
  EXPECT_TRUE(told("a release") && told("b release"));
  EXPECT_FALSE(told("a give-home"));
  EXPECT_FALSE(household_.gone);
  EXPECT_EQ(domain_->record().members[0].vcpus, 1) << "it gets its share again";
}

TEST_F(Role, StaysWhereTheHeirCannotOpenAFile) {
  run(2);
  slices_.fails["a give-home"] = "3 (/data/in) cannot be opened: Permission denied";
  domain_->ask_member("a", "drain");
  rests();
  EXPECT_EQ(state("a"), State::kActive);
  EXPECT_THAT(error("a"), HasSubstr("its role as the home stays here: host a: 3 (/data/in)"));
  EXPECT_TRUE(told("a release") && told("b release"));
  EXPECT_FALSE(domain_->stopping());
  // And goes when it can.
  slices_.fails.clear();
  domain_->ask_member("a", "drain");
  spin([this] { return household_.on_taken != nullptr; });
}

TEST_F(Role, WhatIsBoundIsNamedBeforeAnythingChanges) {
  run(2);
  slices_.bound = {"0 terminal /dev/pts/1", "4 socket"};
  domain_->ask_member("a", "drain");
  ASSERT_EQ(household_.answers.size(), 1U);
  EXPECT_THAT(household_.answers[0],
              HasSubstr("drain is refused: host a is the home of domain wide, and what the program "
                        "has open there is bound to that host (0 terminal /dev/pts/1, 4 socket)"));
  EXPECT_EQ(state("b"), State::kActive);
  EXPECT_TRUE(slices_.orders.empty());
}

TEST_F(Role, NobodyButAnActiveHostTakesIt) {
  run(2);
  household_.hosts.erase("b");
  domain_->ask_member("a", "drain");
  ASSERT_EQ(household_.answers.size(), 1U);
  EXPECT_THAT(household_.answers[0], HasSubstr("no other active member could take its role"));
}

TEST_F(Role, ASliceThatDoesNotLearnOfItEndsTheDomain) {
  run(3);
  slices_.fails["c home 1"] = "no connection";
  domain_->ask_member("a", "drain");
  spin([this] { return domain_->stopping(); });
  EXPECT_THAT(domain_->outcome().message,
              HasSubstr("the home could not move: host c: no connection"));
}

TEST_F(Role, AnHeirsDaemonThatDoesNotTakeItIsNamed) {
  run(2);
  domain_->ask_member("a", "drain");
  spin([this] { return household_.on_taken != nullptr; });
  household_.on_taken(Error{EIO, "host b does not take the home's role: no answer"});
  EXPECT_FALSE(household_.gone);
  EXPECT_FALSE(domain_->stopping());
  EXPECT_THAT(domain_->record().members[0].error, HasSubstr("does not take"));
}

TEST(RoleState, IsCheckedByteForByte) {
  RoleState state;
  state.record.uuid = kUuid;
  state.record.name = "wide";
  state.record.home = "b";
  state.record.state = xenstore::DomainState::kRunning;
  state.record.members = {{"a", State::kDraining, 0, "", {}, false},
                          {"b", State::kActive, 1, "", {}, false}};
  state.record.vcpus = {{"b", 0, 1}};
  state.user.name = "root";
  for (const DomainMember& member : state.record.members)
    state.numbers.push_back({host_named(member.host), member, 1, false, false, false, 0});
  state.secret = std::string(64, 'a');
  state.first_hosts = 2;
  state.home = 1;
  state.engine_home = 0;
  state.leaves = "a";
  const Json good = to_json(state);
  const auto back = role_state_from(good, "b");
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(to_json(*back)["numbers"], good["numbers"]);
  const std::multimap<std::string, Json> changes{
      {"home", 0},          {"home", 7},    {"engine_home", 9}, {"secret", "short"},
      {"first_hosts", 0},   {"epoch", 0},   {"leaves", "b"},    {"leaves", "c"},
      {"without", {"sun"}}, {"numbers", 1}, {"record", 1},      {"user", 1}};
  for (const auto& [key, value] : changes) {
    Json bad = good;
    bad[key] = value;
    EXPECT_FALSE(role_state_from(bad, "b")) << key << " " << value;
  }
  Json bad = good;
  bad["numbers"][0]["state"] = "lost";
  EXPECT_FALSE(role_state_from(bad, "b"));
  bad = good;
  bad["numbers"][1]["gone"] = true;
  EXPECT_FALSE(role_state_from(bad, "b")) << "the home itself";
}

}  // namespace
}  // namespace xenspan::daemon
