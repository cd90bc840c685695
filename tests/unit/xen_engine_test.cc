// Two engines over pages as Xen has them, with stand-ins for Xen: the home's memory is taken over,
// and what vCPUs on both hosts write is what they read, with few mappings and memory that follows
// use.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "dom0-daemon/hypervisor/xen/page_access.h"
#include "dsm-rdma/engine.h"
#include "tests/unit/engine_cluster.h"
#include "tests/unit/fake_guest_pages.h"

namespace xenspan::hypervisor::xen {
namespace {

using dsm::Gfn;
using dsm::Right;

constexpr Gfn kPages = 2048, kShared = 8, kMoved = 1500;

struct Host {
  test::FakeGuestPages guest{kPages};
  std::unique_ptr<PageAccess> pages;
  std::unique_ptr<dsm::tcp::Acceptor> acceptor;
  std::unique_ptr<dsm::Transport> transport;
  std::unique_ptr<dsm::Engine> engine;
  std::thread server;

  // As a vCPU under Xen: faults until the access goes through.
  bool touch(Gfn gfn, Right needed, const std::function<void(std::uint64_t*)>& touch) {
    const auto words = [&](std::byte* page) { touch(reinterpret_cast<std::uint64_t*>(page)); };
    while (!guest.touch(gfn, access_of(needed), words)) {
      if (engine->acquire(gfn, needed) == dsm::Outcome::kStopped) return false;
    }
    return true;
  }
};

class XenEngines : public testing::Test {
 protected:
  void SetUp() override {
    dsm::tcp::MeshConfig mesh;
    mesh.pages = kPages;
    for (unsigned i = 0; i < 2; ++i) {
      hosts_[i].guest.start();
      auto pages = PageAccess::create(hosts_[i].guest, {kPages, 2, 64, 100});
      hosts_[i].pages = std::move(*pages);
      std::uint16_t port;
      dsm::tcp::Acceptor::Config config;
      config.listening = dsm::test::listen_on_loopback(port);
      config.secret = dsm::test::some_secret(3);
      config.self = static_cast<dsm::HostId>(i);
      config.hosts = 2;
      auto acceptor = dsm::tcp::Acceptor::start(std::move(config));
      hosts_[i].acceptor = std::move(*acceptor);
      mesh.hosts.push_back({i == 0 ? "home" : "remote", "127.0.0.1", port});
    }
    std::thread other([&] { connect(1, mesh); });
    connect(0, mesh);
    other.join();
    ASSERT_TRUE(hosts_[0].transport && hosts_[1].transport);
    for (Gfn gfn = 0; gfn < contents(); ++gfn) {
      auto* words = reinterpret_cast<std::uint64_t*>(hosts_[0].guest.put_before(gfn));
      words[0] = words[511] = gfn * 3;
    }
    hosts_[0].pages->adopt(0, contents());
    for (Host& host : hosts_) ASSERT_EQ(host.pages->prime(), 0);
    for (unsigned i = 0; i < 2; ++i) start(i);
    ASSERT_EQ(hosts_[0].engine->acquire_range(0, contents(), Right::kExclusive),
              dsm::Outcome::kGranted);
  }
  // Pages that the home has when the domain begins to span; the others are zeros.
  virtual Gfn contents() const { return kPages; }
  void TearDown() override {
    for (Host& host : hosts_) {
      if (host.engine) host.engine->stop("over");
      if (host.server.joinable()) host.server.join();
      EXPECT_EQ(host.guest.crashes, 0u) << "the stock of on-demand pages was empty";
      EXPECT_EQ(host.guest.mistakes, 0u) << "a page was given back that was not there, or in use";
    }
  }
  void connect(unsigned i, const dsm::tcp::MeshConfig& mesh) {
    auto made = dsm::tcp::connect_mesh(mesh, *hosts_[i].acceptor);
    if (made) hosts_[i].transport = std::move(*made);
  }
  void start(unsigned i) {
    dsm::EngineConfig config;
    config.self = static_cast<dsm::HostId>(i);
    config.hosts = 2;
    config.pages = kPages;
    config.prefetch = 0;
    auto made = dsm::Engine::create(config, *hosts_[i].pages, *hosts_[i].transport,
                                    [](const std::string&) {});
    ASSERT_TRUE(made.ok());
    hosts_[i].engine = std::move(*made);
    hosts_[i].server = std::thread([this, i] { hosts_[i].engine->serve(); });
  }

  Host hosts_[2];
};

TEST_F(XenEngines, MemoryOfTheHomeMovesAndComesBack) {
  for (int round = 0; round < 2; ++round) {
    for (const unsigned at : {1, 0}) {
      for (Gfn gfn = 0; gfn < kMoved; ++gfn) {
        std::uint64_t first = 0, last = 0;
        ASSERT_TRUE(hosts_[at].touch(gfn, Right::kExclusive,
                                     [&](std::uint64_t* words) {
                                       first = words[0]++;
                                       last = words[511]++;
                                     }))
            << "page " << gfn << " at host " << at << ": " << hosts_[at].engine->stop_cause();
        const std::uint64_t expected = gfn * 3 + 2 * static_cast<unsigned>(round) + 1 - at;
        ASSERT_EQ(first, expected) << "page " << gfn << " at host " << at;
        ASSERT_EQ(last, expected) << "page " << gfn << " at host " << at;
      }
    }
  }
  // All is at home again; the other's memory is a stock and a batch.
  EXPECT_LE(hosts_[0].pages->mapped(), 64u);
  hosts_[1].pages->give_back_dropped();
  unsigned held = 0;
  for (Gfn gfn = 0; gfn < kPages; ++gfn) held += hosts_[1].guest.populated(gfn);
  EXPECT_LE(held, 2u);
}

TEST_F(XenEngines, CountersLoseNothing) {
  constexpr unsigned kEach = 1500, kThreads = 2;
  std::vector<std::thread> vcpus;
  for (unsigned at = 0; at < 2; ++at) {
    for (unsigned i = 0; i < kThreads; ++i) {
      vcpus.emplace_back([this, at, i] {
        std::mt19937 random(at * 10 + i);
        for (unsigned n = 0; n < kEach; ++n) {
          hosts_[at].touch(random() % kShared, Right::kExclusive,
                           [](std::uint64_t* words) { ++words[7]; });
          const Gfn other = kShared + random() % 200;
          hosts_[at].touch(other, Right::kShared, [other](std::uint64_t* words) {
            EXPECT_EQ(words[0], other * 3);
            EXPECT_EQ(words[511], other * 3);
          });
        }
      });
    }
  }
  for (std::thread& each : vcpus) each.join();
  std::uint64_t sum = 0;
  for (Gfn gfn = 0; gfn < kShared; ++gfn)
    hosts_[1].touch(gfn, Right::kShared, [&](std::uint64_t* words) { sum += words[7]; });
  EXPECT_EQ(sum, 2u * kThreads * kEach);
  EXPECT_EQ(hosts_[0].engine->stop_cause(), "");
}

class XenEnginesMostlyZero : public XenEngines {
 protected:
  Gfn contents() const override { return 16; }
};

// More of them than may be mapped at a time, each touched by the other host before the home has
// done anything to it: the home tells that they are zeros, and has no memory for them.
TEST_F(XenEnginesMostlyZero, TheHomeHasNoMemoryForWhatOnlyTheOtherTouches) {
  for (Gfn gfn = contents(); gfn < kMoved; ++gfn) {
    const Right needed = gfn % 2 == 0 ? Right::kExclusive : Right::kShared;
    std::uint64_t found = 1;
    ASSERT_TRUE(hosts_[1].touch(gfn, needed,
                                [&](std::uint64_t* words) {
                                  found = words[0] | words[511];
                                  if (needed == Right::kExclusive) words[0] = gfn;
                                }))
        << "page " << gfn << ": " << hosts_[0].engine->stop_cause()
        << hosts_[1].engine->stop_cause();
    ASSERT_EQ(found, 0u) << "page " << gfn;
  }
  unsigned held = 0;
  for (Gfn gfn = contents(); gfn < kPages; ++gfn) held += hosts_[0].guest.populated(gfn);
  EXPECT_EQ(held, 0u);
  for (Gfn gfn = contents(); gfn < kMoved; ++gfn) {
    std::uint64_t found = 0;
    ASSERT_TRUE(
        hosts_[0].touch(gfn, Right::kShared, [&](std::uint64_t* words) { found = words[0]; }));
    ASSERT_EQ(found, gfn % 2 == 0 ? gfn : 0) << "page " << gfn;
  }
}

TEST_F(XenEngines, NoMemoryStopsTheDomainWithItsCause) {
  hosts_[1].guest.fail_stock = true;
  bool running = true;
  for (Gfn gfn = 0; gfn < kPages && running; ++gfn)
    running = hosts_[1].touch(gfn, Right::kExclusive, [](std::uint64_t*) {});
  EXPECT_FALSE(running);
  EXPECT_NE(hosts_[1].engine->stop_cause(), "");
}

}  // namespace
}  // namespace xenspan::hypervisor::xen
