// Whom a domain takes for lost: what slices, daemons and votes tell its home comes in every order,
// from stand-ins.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dom0-daemon/daemon/leases.h"
#include "tests/unit/domain_stand_ins.h"

namespace xenspan::daemon {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// Hosts a (the home), b, c and d; `vcpus`: where each is.
class DomainLosses : public testing::Test {
 protected:
  void run(const std::vector<int>& vcpus) {
    DomainSpec spec;
    spec.uuid = kUuid;
    spec.name = "wide";
    spec.transport = xenstore::Transport::kTcp;
    spec.lost_after = std::chrono::milliseconds(100);
    for (const char* name : {"a", "b", "c", "d"}) {
      HostRecord host;
      host.name = name;
      host.cores = {0};
      spec.placement.hosts.push_back(host);
    }
    for (const int host : vcpus) spec.placement.vcpus.push_back({host, 0});
    domain_ = std::make_unique<Domain>(loop_, slices_, household_, std::move(spec));
    domain_->start();
    for (const char* event : {"listening", "ready"})
      for (const char* host : {"a", "b", "c", "d"})
        domain_->slice_event(host, {{"event", event}, {"port", 1}});
    domain_->slice_event("a", {{"event", "running"}});
    slices_.told.clear();
  }
  void unreached(const std::string& by, int host) {
    domain_->slice_event(
        by, {{"event", "peer-lost"}, {"host", host}, {"error", "its connection was reset"}});
  }
  void failed(const std::string& host, const std::string& error) {
    domain_->slice_event(host, {{"event", "failed"}, {"status", 125}, {"error", error}});
  }
  void agreed(std::vector<std::string> gone, std::vector<std::string> by) {
    Agreed agreed;
    agreed.uuid = kUuid;
    agreed.gone = std::move(gone);
    agreed.by = std::move(by);
    agreed.epoch = 2;
    domain_->agreed(agreed);
  }
  // They tell that they know of no page; then the home that there are no names.
  void tell_holdings(const std::vector<std::string>& hosts) {
    for (const std::string& host : hosts) {
      ASSERT_FALSE(slices_.told[host].empty()) << host;
      ASSERT_EQ(slices_.told[host].back(), "holdings") << host;
      domain_->slice_event(host, {{"event", "holdings"}, {"id", slices_.last[host]["id"]}});
    }
    ASSERT_EQ(slices_.told["a"].back(), "resolve");
    domain_->slice_event("a", {{"event", "resolved"}, {"id", slices_.last["a"]["id"]}});
  }
  bool told(const std::string& host, const std::string& op) {
    const auto& ops = slices_.told[host];
    return std::find(ops.begin(), ops.end(), op) != ops.end();
  }
  bool halted() { return told("a", "halt"); }
  // Until the domain has begun to end.
  void wait() {
    const Timer look(
        loop_, std::chrono::milliseconds(20),
        [this] {
          if (domain_->stopping()) loop_.stop();
        },
        /*repeat=*/true);
    const Timer limit(loop_, std::chrono::seconds(60), [this] { loop_.stop(); });
    loop_.run();
  }
  const std::string& end() const { return domain_->outcome().message; }

  EventLoop loop_;
  StandInSlices slices_;
  Household household_;
  std::unique_ptr<Domain> domain_;
};

TEST_F(DomainLosses, WhoStopsBecauseTheDomainEndsIsNotBlamed) {
  run({0, 1, 2});
  unreached("b", 2);
  EXPECT_FALSE(halted()) << "a connection that ends is no proof";
  agreed({"c"}, {"a", "b", "d"});
  EXPECT_TRUE(told("b", "halt"));
  // Slices that halt close their connections, and the others see that first.
  unreached("a", 1);
  unreached("d", 1);
  failed("b", "lost host c");
  unreached("b", 3);
  tell_holdings({"a", "b", "d"});
  EXPECT_THAT(end(), StartsWith("lost host c (epoch 2, agreed on by a, b and d): no sign of life; "
                                "vCPU 2 ran there"));
}

TEST_F(DomainLosses, WhatASliceSaysOfItselfCounts) {
  run({0, 1, 2});
  unreached("a", 1);
  unreached("c", 1);
  failed("b", "page 5 cannot be mapped on host b: Cannot allocate memory");
  EXPECT_EQ(end(), "host b: page 5 cannot be mapped on host b: Cannot allocate memory");
}

TEST_F(DomainLosses, HowItsSliceEndedIsTheCause) {
  run({0, 1, 2});
  unreached("a", 2);
  unreached("b", 2);
  SliceEnd killed;
  killed.by_signal = true;
  killed.number = 9;
  domain_->slice_ended("c", killed);
  EXPECT_TRUE(halted());
  unreached("a", 1);
  tell_holdings({"a", "b", "d"});
  EXPECT_THAT(end(), StartsWith("lost host c: its slice ended with signal 9; vCPU 2 ran there"));
}

TEST_F(DomainLosses, OfTwoThatDoNotReachEachOtherTheOthersChoose) {
  run({0, 1, 3});
  // c runs no vCPU. It is the first to complain, of a host that does.
  unreached("c", 1);
  unreached("b", 2);
  agreed({"c"}, {"a", "b", "d"});
  EXPECT_FALSE(halted());
  EXPECT_TRUE(told("c", "stop"));
  EXPECT_TRUE(told("a", "vacate")) << "the domain goes on without c";
  EXPECT_FALSE(domain_->stopping());
}

TEST_F(DomainLosses, NobodyGoesOnWhileOthersDoNotReachEachOther) {
  run({0, 1});
  unreached("a", 2);
  unreached("b", 3);
  agreed({"c"}, {"a", "b", "d"});
  EXPECT_FALSE(told("a", "vacate")) << "b does not reach d, and both are to go on";
  agreed({"d"}, {"a", "b"});
  EXPECT_FALSE(halted());
  EXPECT_TRUE(told("a", "vacate"));
}

TEST_F(DomainLosses, WhenNobodyKnowsMoreTheUnreachedOneIsLost) {
  run({0, 1, 2});
  unreached("a", 1);
  wait();
  EXPECT_TRUE(told("c", "halt"));
  EXPECT_THAT(end(), StartsWith("lost host b: host a does not reach it any more: its connection "
                                "was reset; vCPU 1 ran there"));
}

TEST_F(DomainLosses, ASliceThatCannotDoWithoutTheHomeIsUnreached) {
  run({0, 1, 2});
  failed("b", "host a is lost: its connection was reset");
  EXPECT_FALSE(domain_->stopping()) << "how it was may follow";
  domain_->host_lost("b", "no sign of life for 3 s");
  agreed({"b"}, {"a", "c", "d"});
  tell_holdings({"a", "c", "d"});
  EXPECT_THAT(end(), StartsWith("lost host b (epoch 2, agreed on by a, c and d): no sign of life "
                                "for 3 s; vCPU 1 ran there"));
}

TEST_F(DomainLosses, ALossWhileThePagesAreLookedForNamesBoth) {
  run({0, 1});
  agreed({"c"}, {"a", "b", "d"});
  EXPECT_TRUE(told("a", "vacate"));
  unreached("b", 3);
  EXPECT_FALSE(domain_->stopping());
  domain_->host_lost("d", "its xenspand closed the connection");
  EXPECT_THAT(end(), StartsWith("lost hosts c and d (epoch 2, agreed on by a, b and d): no sign of "
                                "life; the others could not go on without it: host d was lost, "
                                "too: its xenspand closed the connection"));
}

}  // namespace
}  // namespace xenspan::daemon
