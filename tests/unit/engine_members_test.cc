// Hosts come and go while real engines run over real TCP: slots change their managers, a host
// joins, one drains and leaves, its number is used again. Meanwhile threads on all hosts add to
// counters that share pages; not one addition may be lost.
#include <gtest/gtest.h>

#include <thread>

#include "tests/unit/engine_cluster.h"

namespace xenspan::dsm::test {
namespace {

constexpr Gfn kPages = 600;  // two chunks of the page table, many slots
constexpr unsigned kMost = 4;

class Domain {
 public:
  explicit Domain(unsigned hosts, bool survives = false, unsigned prefetch = kMostPrefetch)
      : rights(kMost, kPages),
        survives_(survives),
        prefetch_(prefetch),
        mesh_(mesh()),
        hosts_(kMost) {
    for (unsigned i = 0; i < hosts; ++i) open(i, 0);
    std::vector<std::thread> joining;
    for (unsigned i = 0; i < hosts; ++i) joining.emplace_back([this, i] { connect(i); });
    for (std::thread& each : joining) each.join();
    for (unsigned i = 0; i < hosts; ++i) start(i, hosts, nullptr);
  }
  ~Domain() {
    for (unsigned i = 0; i < kMost; ++i) stop(i);
  }

  // As membership.h says it: connections on all sides, the table, then its share of slots.
  void join(unsigned host, std::uint32_t incarnation) {
    const HostMask before = live();
    open(host, incarnation);
    std::vector<std::thread> joining;
    joining.emplace_back([this, host] { connect(host); });
    for (unsigned i = 0; i < kMost; ++i) {
      if (i == host || !hosts_[i].engine) continue;
      joining.emplace_back([this, host, i] {
        const auto number = static_cast<HostId>(host);
        check(hosts_[i].engine->add_peer(number, mesh_.hosts[host].name));
        check(tcp::add_peer(*hosts_[i].transport, *hosts_[i].acceptor, number, mesh_.hosts[host],
                            60'000));
      });
    }
    for (std::thread& each : joining) each.join();
    if (!hosts_[host].transport) return;
    unsigned any = 0;
    while (any == host || !hosts_[any].engine) ++any;
    const SlotTable table = hosts_[any].engine->slots();
    start(host, kMost, &table, before);
    check(hosts_[host].engine->take_slots(live()));
  }
  void leave(unsigned host) {
    const HostMask rest = live() & ~mask_of(static_cast<HostId>(host));
    check(hosts_[host].engine->drain(rest));
    EXPECT_EQ(held(host), 0u);
    const SlotTable table = hosts_[host].engine->slots();
    for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot)
      ASSERT_NE(table.manager_of_slot(slot), host);
    const auto others = [&](auto call) {
      for (unsigned i = 0; i < kMost; ++i) {
        if ((rest & mask_of(static_cast<HostId>(i))) != 0) call(*hosts_[i].engine);
      }
    };
    others([&](Engine& engine) {
      engine.learn_slots(table);
      check(engine.settle());
    });
    others([&](Engine& engine) { check(engine.remove_peer(static_cast<HostId>(host))); });
    stop(host);
    hosts_[host] = Host{};
    mesh_.hosts[host] = {};
  }
  // The same of the home, which goes on with the pages that nobody has touched until the others
  // know.
  void leave_home(unsigned host) {
    const HostMask rest = live() & ~mask_of(static_cast<HostId>(host));
    check(hosts_[host].engine->drain(rest));
    const auto others = [&](auto call) {
      for (unsigned i = 0; i < kMost; ++i) {
        if ((rest & mask_of(static_cast<HostId>(i))) != 0) call(*hosts_[i].engine);
      }
    };
    others([](Engine& engine) { engine.forget_home(); });
    others([&](Engine& engine) { check(engine.settle()); });
    hosts_[host].engine->forget_home();
    home_ = kNoHost;
    leave(host);
  }
  // Everything of the host at once, as when its process is killed.
  void kill(unsigned host) {
    stop(host);
    hosts_[host] = Host{};
    for (Gfn gfn = 0; gfn < kPages; ++gfn)
      rights.set(static_cast<HostId>(host), gfn, Right::kInvalid);
  }
  // The others go on without it (survival.h). What is lost with it.
  std::uint64_t bury(unsigned host) {
    const HostMask rest = live();
    std::uint64_t lost = 0;
    const auto all = [&](auto call) {
      for (unsigned i = 0; i < kMost; ++i) {
        if ((rest & mask_of(static_cast<HostId>(i))) != 0) call(*hosts_[i].engine);
      }
    };
    all([&](Engine& engine) { check(engine.freeze(mask_of(static_cast<HostId>(host)))); });
    wait_until_quiet(rest);
    SlotTable table = hosts_[0].engine->slots();
    table.rebalance(rest);
    for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot)
      table.assign(slot, table.manager_of_slot(slot),
                   static_cast<Moves>(table.moves_of_slot(slot) % 1000 + 1));
    ++epoch_;
    all([&](Engine& engine) { check(engine.forget(table, epoch_)); });
    for (Host& each : hosts_) {
      if (each.engine) each.acceptor->enter_epoch(epoch_);
    }
    all([&](Engine& engine) { check(engine.claim()); });
    wait_until_quiet(rest);
    all([&](Engine& engine) {
      const auto judged = engine.judge();
      if (!judged) return ADD_FAILURE() << judged.error().message, void();
      for (const PageRun& run : *judged) lost += run.count;
    });
    wait_until_quiet(rest);
    all([&](Engine& engine) { check(engine.abandon()); });
    all([&](Engine& engine) { check(engine.thaw()); });
    mesh_.hosts[host] = {};
    return lost;
  }
  void wait_until_quiet(HostMask rest) {
    const auto look = [&] {
      std::vector<PeerTraffic> found(kMost);
      for (unsigned i = 0; i < kMost; ++i)
        if ((rest >> i & 1) != 0) found[i] = hosts_[i].engine->peer_traffic();
      return found;
    };
    for (auto before = look(); stops == stopped_by_test_;) {
      auto now = look();
      bool quiet = now == before;
      for (unsigned i = 0; i < kMost; ++i) {
        for (unsigned k = 0; k < kMost; ++k) {
          if ((rest >> i & rest >> k & 1) == 0) continue;
          quiet = quiet && now[i].idle && now[i].sent[k] == now[k].received[i];
        }
      }
      if (quiet) return;
      before = std::move(now);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  unsigned held(unsigned host) {
    unsigned count = 0;
    for (Gfn gfn = 0; gfn < kPages; ++gfn)
      count += hosts_[host].engine->right(gfn) != Right::kInvalid;
    return count;
  }
  HostMask live() const {
    HostMask mask = 0;
    for (unsigned i = 0; i < kMost; ++i) {
      if (hosts_[i].engine) mask |= mask_of(static_cast<HostId>(i));
    }
    return mask;
  }
  unsigned managed(unsigned host) { return managed(host, host); }
  unsigned managed(unsigned host, unsigned asked) {
    unsigned count = 0;
    const SlotTable table = hosts_[asked].engine->slots();
    for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot)
      count += table.manager_of_slot(slot) == host;
    return count;
  }

  void slow_down(unsigned host, unsigned us) { hosts_[host].backend->frame_takes_us = us; }
  Engine& engine(unsigned host) { return *hosts_[host].engine; }
  bool access(unsigned host, Gfn gfn, Right needed, const std::function<void(std::byte*)>& touch) {
    while (!hosts_[host].backend->touch(gfn, needed, touch)) {
      if (hosts_[host].engine->acquire(gfn, needed) == Outcome::kStopped) return false;
    }
    return true;
  }
  bool add(unsigned host, Gfn gfn) {
    return access(host, gfn, Right::kExclusive, [](std::byte* page) {
      std::uint64_t value;
      std::memcpy(&value, page, sizeof value);
      ++value;
      std::memcpy(page, &value, sizeof value);
    });
  }
  std::uint64_t read(unsigned host, Gfn gfn) {
    std::uint64_t value = ~std::uint64_t{0};
    access(host, gfn, Right::kShared,
           [&](std::byte* page) { std::memcpy(&value, page, sizeof value); });
    return value;
  }
  void check(const Status& status) {
    if (!status) ADD_FAILURE() << status.error().message;
  }

  RightsTable rights;
  std::atomic<unsigned> stops{0}, losses{0};

 private:
  struct Host {
    std::unique_ptr<tcp::Acceptor> acceptor;
    std::unique_ptr<MemoryBackend> backend;
    std::unique_ptr<Transport> transport;
    std::unique_ptr<Engine> engine;
    std::thread server;
  };
  static tcp::MeshConfig mesh() {
    tcp::MeshConfig mesh;
    mesh.pages = kPages;
    mesh.lanes = 3;
    mesh.timeout_ms = 60'000;
    mesh.dead_after_ms = 60'000;
    mesh.hosts.resize(kMost);
    return mesh;
  }
  void open(unsigned host, std::uint32_t incarnation) {
    std::uint16_t port;
    tcp::Acceptor::Config config;
    config.listening = listen_on_loopback(port);
    config.secret = some_secret(1);
    config.self = static_cast<HostId>(host);
    config.hosts = kMost;
    config.epoch = epoch_;
    auto started = tcp::Acceptor::start(std::move(config));
    ASSERT_TRUE(started);
    hosts_[host].acceptor = std::move(*started);
    mesh_.hosts[host] = {"h" + std::to_string(host), "127.0.0.1", port, incarnation};
  }
  void connect(unsigned host) {
    auto made = tcp::connect_mesh(mesh_, *hosts_[host].acceptor);
    if (!made) {
      ADD_FAILURE() << made.error().message;
      return;
    }
    hosts_[host].transport = std::move(*made);
  }
  void start(unsigned host, unsigned count, const SlotTable* table, HostMask members = 0) {
    Host& each = hosts_[host];
    each.backend = std::make_unique<MemoryBackend>(static_cast<HostId>(host), kPages, rights);
    EngineConfig config;
    config.self = static_cast<HostId>(host);
    config.hosts = count;
    config.most_hosts = kMost;
    config.members = members;
    config.home = home_;
    config.pages = kPages;
    config.prefetch = prefetch_;
    if (survives_) config.on_peer_lost = [this](HostId, const char*) { ++losses; };
    auto made = Engine::create(config, *each.backend, *each.transport,
                               [this](const std::string&) { ++stops; });
    ASSERT_TRUE(made) << made.error().message;
    each.engine = std::move(*made);
    if (table != nullptr) each.engine->learn_slots(*table);
    each.server = std::thread([&each] { each.engine->serve(); });
  }
  void stop(unsigned host) {
    Host& each = hosts_[host];
    if (each.engine) {
      ++stopped_by_test_;
      each.engine->stop("the test is over");
    }
    if (each.server.joinable()) each.server.join();
  }

  HostId home_ = 0;
  const bool survives_;
  const unsigned prefetch_;
  std::atomic<unsigned> stopped_by_test_{0};
  Epoch epoch_ = 1;
  tcp::MeshConfig mesh_;
  std::vector<Host> hosts_;
};

// A vCPU that adds to counters at random until it is told to stop.
class Load {
 public:
  Load(Domain& domain, unsigned host, std::uint64_t seed)
      : thread_([this, &domain, host, seed] {
          std::uint64_t x = seed * 0x9e3779b97f4a7c15 + 1;
          while (!ended_ && !failed) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            const Gfn gfn = x % 3 == 0 ? x / 8 % kPages : x / 8 % 16;
            if (x % 4 == 0) {
              failed = domain.read(host, gfn) == ~std::uint64_t{0};
            } else {
              failed = !domain.add(host, gfn);
              if (!failed) ++added;
            }
          }
        }) {}
  ~Load() { end(); }
  std::uint64_t end() {
    ended_ = true;
    if (thread_.joinable()) thread_.join();
    return added;
  }
  // Until it has done so much more: the other threads' turns are sure to come in between.
  void go_on(std::uint64_t more) {
    for (const std::uint64_t until = added + more; added < until && !failed;)
      std::this_thread::yield();
  }
  std::atomic<std::uint64_t> added{0};
  std::atomic<bool> failed{false};

 private:
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

std::uint64_t sum(Domain& domain, unsigned host) {
  std::uint64_t sum = 0;
  for (Gfn gfn = 0; gfn < kPages; ++gfn) sum += domain.read(host, gfn);
  return sum;
}

TEST(EngineMembers, SlotsChangeHandsUnderLoad) {
  Domain domain(3);
  ASSERT_EQ(domain.live(), 7u);
  Load a(domain, 0, 1), b(domain, 1, 2), c(domain, 2, 3);
  for (unsigned round = 0; round < 12; ++round) {
    // All slots to one host, then shares for all again; two hosts take at a time.
    const HostMask all = round % 2 == 0 ? mask_of(static_cast<HostId>(round / 2 % 3)) : 7;
    std::vector<std::thread> takers;
    for (unsigned host = 0; host < 3; ++host) {
      if ((all & mask_of(static_cast<HostId>(host))) == 0) continue;
      takers.emplace_back([&, host] { domain.check(domain.engine(host).take_slots(all)); });
    }
    for (std::thread& each : takers) each.join();
    if (round % 2 == 0) {
      EXPECT_EQ(domain.managed(round / 2 % 3), SlotTable::kSlots);
    }
    a.go_on(20);
  }
  const std::uint64_t added = a.end() + b.end() + c.end();
  EXPECT_FALSE(a.failed || b.failed || c.failed);
  for (unsigned host = 0; host < 3; ++host) EXPECT_EQ(sum(domain, host), added);
  EXPECT_EQ(domain.rights.violations, 0u);
  EXPECT_EQ(domain.stops, 0u);
}

TEST(EngineMembers, AHostJoinsAndOneLeavesAndComesBack) {
  Domain domain(2);
  ASSERT_EQ(domain.live(), 3u);
  std::uint64_t added = 0;
  Load home(domain, 0, 1);
  auto second = std::make_unique<Load>(domain, 1, 2);
  home.go_on(20);
  domain.join(2, 0);
  ASSERT_EQ(domain.live(), 7u);
  EXPECT_NEAR(domain.managed(2), SlotTable::kSlots / 3, 1);
  Load third(domain, 2, 3);
  third.go_on(50);
  for (std::uint32_t incarnation = 1; incarnation < 4; ++incarnation) {
    added += second->end();
    ASSERT_FALSE(second->failed);
    second.reset();
    domain.leave(1);
    EXPECT_EQ(domain.live(), 5u);
    home.go_on(20);
    third.go_on(20);
    domain.join(1, incarnation);
    ASSERT_EQ(domain.live(), 7u);
    second = std::make_unique<Load>(domain, 1, 3 + incarnation);
    second->go_on(50);
  }
  added += home.end() + second->end() + third.end();
  EXPECT_FALSE(home.failed || second->failed || third.failed);
  for (unsigned host = 0; host < 3; ++host) EXPECT_EQ(sum(domain, host), added);
  EXPECT_EQ(domain.rights.violations, 0u);
  EXPECT_EQ(domain.stops, 1u * 3) << "nobody but the hosts that left has stopped";
}

TEST(EngineMembers, ADrainedHostLosesNothingThatOnlyItHad) {
  Domain domain(3);
  ASSERT_EQ(domain.live(), 7u);
  // Exclusive at 1; read by 0 from 1, so that 1 stays the owner; read by 1; untouched.
  for (Gfn gfn = 0; gfn < 300; ++gfn) ASSERT_TRUE(domain.add(1, gfn));
  for (Gfn gfn = 100; gfn < 200; ++gfn) ASSERT_EQ(domain.read(0, gfn), 1u);
  for (Gfn gfn = 300; gfn < 400; ++gfn) ASSERT_TRUE(domain.add(0, gfn));
  for (Gfn gfn = 300; gfn < 400; ++gfn) ASSERT_EQ(domain.read(1, gfn), 1u);
  for (Gfn gfn = 300; gfn < 350; ++gfn) ASSERT_EQ(domain.read(2, gfn), 1u);
  domain.leave(1);
  for (Gfn gfn = 0; gfn < 400; ++gfn) {
    EXPECT_EQ(domain.read(2, gfn), 1u) << gfn;
    EXPECT_EQ(domain.read(0, gfn), 1u) << gfn;
  }
  // What is shared stays shared with the others, and a last reader writes.
  for (Gfn gfn = 300; gfn < 400; ++gfn) ASSERT_TRUE(domain.add(0, gfn));
  EXPECT_EQ(sum(domain, 2), 500u);
  EXPECT_EQ(domain.rights.violations, 0u);
  EXPECT_EQ(domain.stops, 1u);
}

// Under an emulator a page takes milliseconds: what tells the heir of pages must not be most of
// what it has to do. As many hints as the time allows, and what moves the pages and slots
// themselves.
TEST(EngineMembers, AnHeirThatIsSlowHearsFewHints) {
  constexpr unsigned kDrained = 250;
  Domain domain(2, false, 0);
  ASSERT_EQ(domain.live(), 3u);
  for (Gfn gfn = 0; gfn < kDrained; ++gfn) ASSERT_TRUE(domain.add(1, gfn));
  domain.slow_down(0, 4000);
  const std::uint64_t before = domain.engine(1).peer_traffic().sent[0], began = now_ns();
  domain.check(domain.engine(1).drain(mask_of(0)));
  const std::uint64_t ms = (now_ns() - began) / 1'000'000;
  const std::uint64_t sent = domain.engine(1).peer_traffic().sent[0] - before;
  EXPECT_EQ(domain.held(1), 0u);
  EXPECT_LT(sent, 10'000 + kDrained * ms / 100) << "in " << ms << " ms";
  domain.slow_down(0, 0);
  EXPECT_EQ(sum(domain, 0), kDrained);
}

// A host that only manages pages dies in the middle of everything; then its number is used again.
TEST(EngineMembers, TheOthersGoOnWithoutAManagerThatDies) {
  Domain domain(3, true);
  ASSERT_EQ(domain.live(), 7u);
  Load a(domain, 0, 1), b(domain, 1, 2), c(domain, 0, 3), d(domain, 1, 4);
  for (std::uint32_t round = 1; round < 6; ++round) {
    a.go_on(50);
    EXPECT_GT(domain.managed(2), 0u);
    domain.kill(2);
    EXPECT_EQ(domain.bury(2), 0u);
    EXPECT_EQ(domain.managed(2, 0), 0u);
    EXPECT_EQ(domain.engine(0).members(), 3u);
    b.go_on(50);
    d.go_on(20);
    domain.join(2, round);
    ASSERT_EQ(domain.live(), 7u);
  }
  const std::uint64_t added = a.end() + b.end() + c.end() + d.end();
  EXPECT_FALSE(a.failed || b.failed || c.failed || d.failed);
  for (unsigned host = 0; host < 3; ++host) EXPECT_EQ(sum(domain, host), added);
  EXPECT_EQ(domain.rights.violations, 0u);
}

// One after the other dies, those that came in the place of others too.
TEST(EngineMembers, HostsThatCameBackMayDieAndBeOutlived) {
  Domain domain(3, true);
  ASSERT_EQ(domain.live(), 7u);
  Load a(domain, 0, 1), b(domain, 0, 2);
  std::uint32_t incarnations[3] = {};
  unsigned losses = 0;
  for (const unsigned host : {2u, 1u, 1u, 2u, 1u}) {
    a.go_on(20);
    domain.kill(host);
    // Each of the others is told of it once.
    losses += 2;
    while (domain.losses < losses) std::this_thread::yield();
    EXPECT_EQ(domain.bury(host), 0u);
    b.go_on(20);
    domain.join(host, ++incarnations[host]);
    ASSERT_EQ(domain.live(), 7u);
    EXPECT_GT(domain.managed(host), 0u);
  }
  const std::uint64_t added = a.end() + b.end();
  EXPECT_FALSE(a.failed || b.failed);
  for (unsigned host = 0; host < 3; ++host) EXPECT_EQ(sum(domain, host), added);
  EXPECT_EQ(domain.rights.violations, 0u);
}

// What it had alone is lost, and only that.
TEST(EngineMembers, PagesThatDieWithTheirHostAreCounted) {
  Domain domain(3, true, 0);
  ASSERT_EQ(domain.live(), 7u);
  for (Gfn gfn = 0; gfn < 300; ++gfn) ASSERT_TRUE(domain.add(2, gfn));
  for (Gfn gfn = 100; gfn < 200; ++gfn) ASSERT_EQ(domain.read(1, gfn), 1u);
  for (Gfn gfn = 200; gfn < 300; ++gfn) ASSERT_TRUE(domain.add(0, gfn));
  domain.kill(2);
  EXPECT_EQ(domain.bury(2), 100u);
}

// Its copies were not the last: the readers that are left have the pages now, and write them.
TEST(EngineMembers, CopiesOutliveTheirOwner) {
  Domain domain(3, true, 0);
  ASSERT_EQ(domain.live(), 7u);
  for (Gfn gfn = 0; gfn < 300; ++gfn) ASSERT_TRUE(domain.add(2, gfn));
  for (Gfn gfn = 0; gfn < 300; ++gfn) ASSERT_EQ(domain.read(1, gfn), 1u);
  for (Gfn gfn = 0; gfn < 100; ++gfn) ASSERT_EQ(domain.read(0, gfn), 1u);
  domain.kill(2);
  EXPECT_EQ(domain.bury(2), 0u);
  for (Gfn gfn = 0; gfn < 200; ++gfn) ASSERT_TRUE(domain.add(1, gfn));
  for (Gfn gfn = 200; gfn < 300; ++gfn) ASSERT_TRUE(domain.add(0, gfn));
  EXPECT_EQ(sum(domain, 0), 600u);
  EXPECT_EQ(sum(domain, 1), 600u);
  EXPECT_EQ(domain.rights.violations, 0u);
}

// The home has written to some pages, others to some, and most are as at the start.
TEST(EngineMembers, TheHomeLeaves) {
  Domain domain(3, false, 0);
  ASSERT_EQ(domain.live(), 7u);
  for (Gfn gfn = 0; gfn < 100; ++gfn) ASSERT_TRUE(domain.add(0, gfn));
  for (Gfn gfn = 50; gfn < 150; ++gfn) ASSERT_TRUE(domain.add(1, gfn));
  for (Gfn gfn = 140; gfn < 200; ++gfn) ASSERT_EQ(domain.read(2, gfn), gfn < 150 ? 1u : 0u);
  domain.leave_home(0);
  ASSERT_EQ(domain.live(), 6u);
  EXPECT_EQ(domain.managed(1) + domain.managed(2), SlotTable::kSlots);
  // Reads and writes of what nobody had touched, by its manager and by the other one.
  for (Gfn gfn = 300; gfn < 400; ++gfn) ASSERT_EQ(domain.read(gfn % 2 + 1, gfn), 0u);
  for (Gfn gfn = 350; gfn < 450; ++gfn) ASSERT_TRUE(domain.add(gfn / 2 % 2 + 1, gfn));
  ASSERT_EQ(domain.engine(1).discard(500, 10), Outcome::kGranted);
  ASSERT_EQ(domain.engine(2).discard(505, 10), Outcome::kGranted);
  for (unsigned host = 1; host < 3; ++host) EXPECT_EQ(sum(domain, host), 300u);
  EXPECT_EQ(domain.rights.violations, 0u);
  EXPECT_FALSE(domain.engine(1).freeze(mask_of(2))) << "no home knows what it has given away";
}

TEST(EngineMembers, TheHomeLeavesUnderLoadAndOthersComeAndGo) {
  Domain domain(3);
  ASSERT_EQ(domain.live(), 7u);
  std::uint64_t added = 0;
  auto first = std::make_unique<Load>(domain, 0, 1);
  Load b(domain, 1, 2), c(domain, 2, 3);
  first->go_on(20);
  added += first->end();
  EXPECT_FALSE(first->failed);
  first.reset();
  domain.leave_home(0);
  ASSERT_EQ(domain.live(), 6u);
  b.go_on(50);
  domain.join(3, 0);
  domain.join(0, 1);  // its number, and no home any more
  ASSERT_EQ(domain.live(), 15u);
  first = std::make_unique<Load>(domain, 0, 4);
  first->go_on(20);
  c.go_on(50);
  domain.leave(3);
  b.go_on(20);
  added += b.end() + c.end() + first->end();
  EXPECT_FALSE(b.failed || c.failed || first->failed);
  for (unsigned host = 0; host < 3; ++host) EXPECT_EQ(sum(domain, host), added);
  EXPECT_EQ(domain.rights.violations, 0u);
  EXPECT_EQ(domain.stops, 2u) << "those that left";
}

TEST(EngineMembers, RefusesWhatMakesNoSense) {
  Domain domain(2);
  ASSERT_EQ(domain.live(), 3u);
  Engine& home = domain.engine(0);
  EXPECT_FALSE(domain.engine(1).drain(0)) << "no heir";
  EXPECT_FALSE(domain.engine(1).drain(3)) << "its own heir";
  EXPECT_FALSE(home.take_slots(mask_of(1))) << "no share of its own";
  EXPECT_FALSE(home.take_slots(9)) << "not a member";
  EXPECT_FALSE(home.remove_peer(1)) << "it manages slots";
  EXPECT_FALSE(home.remove_peer(0));
  EXPECT_FALSE(home.add_peer(1, "again"));
  EXPECT_FALSE(home.add_peer(kMost, "too many"));
  EXPECT_EQ(domain.stops, 0u);
  EXPECT_TRUE(domain.add(1, 5));
}

}  // namespace
}  // namespace xenspan::dsm::test
