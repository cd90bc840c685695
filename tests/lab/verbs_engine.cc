// The engine over RDMA verbs (or TCP, to compare) on real machines, one process each: what it does
// to values, counters and ranges, what a read fault costs, and what happens when a peer dies. All
// hosts run the same program; they wait for each other by a counter on a page. Prints a line a
// case; the exit status is 0 when this host saw nothing wrong.
//
// Usage: LAB_HOST=N LAB_HOSTS=N verbs_engine [tcp | verbs | pinned] [WAIT_SPIN_US [FAULTS [cut]]]
//
// Host N has address 10.77.0.(N+1). "verbs" goes through bounce frames, "pinned" registers the
// frames themselves. At the end the last host dies: it ends, or with "cut" its network does.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "dsm-rdma/engine.h"
#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/transport/tcp/tcp_transport.h"
#include "dsm-rdma/transport/verbs/verbs_transport.h"

namespace xenspan::dsm {
namespace {

constexpr Gfn kPages = 4096;
constexpr std::uint16_t kPort = 7700;
constexpr unsigned kDeadAfterMs = 4000;
// Where each case has its pages.
constexpr Gfn kBarrier = 0, kSums = 1, kStorm = 100, kStormPages = 6, kValues = 200, kRange = 1000,
              kFaults = 2000;

// Plain memory in a guest's place. Frames keep their memory when they are dropped, so they can be
// registered.
class KeptMemory final : public PageBackend {
 public:
  KeptMemory() : mapped_(kPages) {
    memory_ = static_cast<std::byte*>(::mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory_ == MAP_FAILED) std::abort();
  }
  ~KeptMemory() override { ::munmap(memory_, kPages * kPageSize); }

  // What a vCPU does: `touch` runs with the page in place and cannot lose it meanwhile. false: no
  // right now.
  bool touch(Gfn gfn, Right needed, const std::function<void(std::uint64_t*)>& touch) {
    const std::lock_guard guard(mapped_[gfn].lock);
    if (mapped_[gfn].right < needed) return false;
    touch(reinterpret_cast<std::uint64_t*>(frame(gfn)));
    return true;
  }

  std::byte* frame(Gfn gfn) noexcept override { return memory_ + gfn * kPageSize; }
  int grant(Gfn first, std::uint32_t count, Right right) noexcept override {
    for (Gfn gfn = first; gfn < first + count; ++gfn) set(gfn, right);
    return 0;
  }
  int protect(Gfn gfn) noexcept override { return set(gfn, Right::kShared); }
  int withdraw(Gfn gfn) noexcept override { return set(gfn, Right::kInvalid); }
  int drop_frame(Gfn gfn) noexcept override {
    std::memset(frame(gfn), 0, kPageSize);
    return 0;
  }
  Run fault_around(Gfn gfn) noexcept override { return {gfn, 1}; }

 private:
  struct Mapped {
    std::mutex lock;
    Right right = Right::kInvalid;
  };
  int set(Gfn gfn, Right right) {
    const std::lock_guard guard(mapped_[gfn].lock);
    mapped_[gfn].right = right;
    return 0;
  }
  std::vector<Mapped> mapped_;
  std::byte* memory_;
};

std::string address_of(unsigned host) { return fmt::format("10.77.0.{}", host + 1); }

UniqueFd listen_on(const std::string& address) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(kPort);
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::inet_pton(AF_INET, address.c_str(), &name.sin_addr) != 1 ||
      ::bind(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0 ||
      ::listen(fd.get(), 64) != 0) {
    fmt::print("FAIL cannot listen on {}\n", address);
    std::exit(2);
  }
  return fd;
}

struct Options {
  unsigned self = 0, hosts = 1, spin_us = 0, faults = 400;
  std::string transport = "verbs";
  bool cut = false;  // death by a cut network
};

// This host's slice, and the cases.
class Host {
 public:
  explicit Host(const Options& options) : options_(options) {}
  ~Host() { stop("over"); }

  Status start() {
    tcp::Acceptor::Config config;
    config.listening = listen_on(address_of(options_.self));
    config.secret.fill(7);
    config.self = static_cast<HostId>(options_.self);
    config.hosts = options_.hosts;
    auto acceptor = tcp::Acceptor::start(std::move(config));
    if (!acceptor) return acceptor.error();
    acceptor_ = std::move(*acceptor);
    auto transport = connect();
    if (!transport) return transport.error();
    transport_ = std::move(*transport);
    EngineConfig engine;
    engine.self = static_cast<HostId>(options_.self);
    engine.hosts = options_.hosts;
    engine.pages = kPages;
    auto made = Engine::create(engine, memory_, *transport_, [](const std::string&) {});
    if (!made) return made.error();
    engine_ = std::move(*made);
    server_ = std::thread([this] { engine_->serve(); });
    return {};
  }
  void stop(const char* cause) {
    if (engine_) engine_->stop(cause);
    if (server_.joinable()) server_.join();
  }

  // All hosts have come as far as this.
  bool barrier() {
    ++round_;
    if (!access(kBarrier, Right::kExclusive, [](std::uint64_t* page) { ++page[0]; })) return false;
    for (std::uint64_t seen = 0; seen < round_ * options_.hosts;) {
      if (!access(kBarrier, Right::kShared, [&](std::uint64_t* page) { seen = page[0]; }))
        return false;
      if (seen < round_ * options_.hosts) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

  void values();
  void storm();
  void ranges();
  void discard();
  void faults();
  void death();

  unsigned wrong() const { return wrong_; }

 private:
  Result<std::unique_ptr<Transport>> connect() {
    std::vector<tcp::Peer> hosts;
    for (unsigned host = 0; host < options_.hosts; ++host) {
      hosts.push_back({fmt::format("lab{}", host), address_of(host), kPort});
    }
    if (options_.transport == "tcp") {
      tcp::MeshConfig config;
      config.hosts = hosts;
      config.pages = kPages;
      config.timeout_ms = 60000;
      config.dead_after_ms = kDeadAfterMs;
      spin(config);
      return tcp::connect_mesh(config, *acceptor_);
    }
    verbs::VerbsConfig config;
    config.hosts = hosts;
    config.pages = kPages;
    config.timeout_ms = 60000;
    config.dead_after_ms = kDeadAfterMs;
    spin(config);
    config.pin_frames = options_.transport == "pinned";
    return verbs::connect_verbs(config, *acceptor_);
  }
  // As ib_write_lat does it, one thread of a host polls: that which faults on host 0, and those
  // that serve it elsewhere.
  template <typename Config>
  void spin(Config& config) const {
    config.wait = {options_.self == 0 ? options_.spin_us : 0, 0};
    config.serve_spin_us = options_.self == 0 ? 0 : options_.spin_us;
  }
  bool access(Gfn gfn, Right needed, const std::function<void(std::uint64_t*)>& touch) {
    while (!memory_.touch(gfn, needed, touch)) {
      if (engine_->acquire(gfn, needed) == Outcome::kStopped) return false;
    }
    return true;
  }
  void store(Gfn gfn, std::uint64_t value) {
    const bool done = access(gfn, Right::kExclusive, [&](std::uint64_t* page) {
      page[0] = value;
      page[511] = ~value;
    });
    expect(done, "the domain has stopped: " + engine_->stop_cause());
  }
  // The value, or one that no case writes when the page is torn.
  std::uint64_t load(Gfn gfn) {
    std::uint64_t value = 0, last = 0;
    access(gfn, Right::kShared, [&](std::uint64_t* page) {
      value = page[0];
      last = page[511];
    });
    return value == 0 && last == 0 ? 0 : last == ~value ? value : ~std::uint64_t{0};
  }
  void expect(bool good, const std::string& what) {
    if (good || ++wrong_ > 20) return;
    fmt::print("FAIL {}\n", what);
  }
  void say(const std::string& what) {
    fmt::print("{}\n", what);
    std::fflush(stdout);
  }

  const Options options_;
  KeptMemory memory_;
  std::unique_ptr<tcp::Acceptor> acceptor_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Engine> engine_;
  std::thread server_;
  std::uint64_t round_ = 0;
  std::atomic<unsigned> wrong_{0};
};

// Every host writes pages, every other reads them; then the next one writes.
void Host::values() {
  constexpr Gfn kCount = 60;
  for (unsigned writer = 0; writer < options_.hosts; ++writer) {
    if (writer == options_.self) {
      for (Gfn gfn = 0; gfn < kCount; ++gfn) store(kValues + gfn, 1000 * (writer + 1) + gfn);
    }
    barrier();
    for (Gfn gfn = 0; gfn < kCount; ++gfn) {
      const std::uint64_t got = load(kValues + gfn);
      expect(got == 1000 * (writer + 1) + gfn,
             fmt::format("page {} of host {} reads {}", gfn, writer, got));
    }
    barrier();
  }
  say("values: done");
}

// Counters that all hosts and threads increment: none may be lost, and a page's words always fit
// each other.
void Host::storm() {
  constexpr unsigned kThreads = 2, kRounds = 150;
  std::atomic<std::uint64_t> increments{0};
  const auto vcpu = [&](unsigned seed) {
    std::mt19937 random(seed);
    for (unsigned round = 0; round < kRounds; ++round) {
      const Gfn gfn = kStorm + random() % kStormPages;
      const bool write = random() % 2 == 0;
      bool fits = false;
      const bool done =
          access(gfn, write ? Right::kExclusive : Right::kShared, [&](std::uint64_t* page) {
            fits = page[100] == page[0] * 3 && page[511] == page[0] * 5;
            if (!write) return;
            ++page[0];
            page[100] = page[0] * 3;
            page[511] = page[0] * 5;
          });
      expect(done && fits, fmt::format("page {} is torn, or the domain has stopped", gfn));
      if (write) ++increments;
    }
  };
  std::vector<std::thread> running;
  for (unsigned i = 0; i < kThreads; ++i) running.emplace_back(vcpu, options_.self * 10 + i);
  for (std::thread& each : running) each.join();
  store(kSums + options_.self, increments);
  barrier();
  std::uint64_t expected = 0, found = 0;
  for (unsigned host = 0; host < options_.hosts; ++host) expected += load(kSums + host);
  for (Gfn gfn = kStorm; gfn < kStorm + kStormPages; ++gfn)
    access(gfn, Right::kShared, [&](std::uint64_t* page) { found += page[0]; });
  expect(found == expected, fmt::format("{} increments of {} are there", found, expected));
  say(fmt::format("storm: {} increments, all there", found));
  barrier();
}

// More requests at once than a lane has bounce frames in use: windows and credit.
void Host::ranges() {
  constexpr std::uint64_t kCount = 600;
  for (unsigned taker = 0; taker < options_.hosts; ++taker) {
    const unsigned writer = (taker + 1) % options_.hosts;
    if (options_.self == writer) {
      for (Gfn gfn = 0; gfn < kCount; ++gfn) store(kRange + gfn, 7000 * (writer + 1) + gfn);
    }
    barrier();
    if (options_.self == taker) {
      const std::uint64_t start = now_ns();
      const Outcome outcome = engine_->acquire_range(kRange, kCount, Right::kShared);
      const std::uint64_t ns = now_ns() - start;
      expect(outcome == Outcome::kGranted, "a range is not granted");
      for (Gfn gfn = 0; gfn < kCount; ++gfn)
        expect(load(kRange + gfn) == 7000 * (writer + 1) + gfn, "a page of a range is wrong");
      say(fmt::format("ranges: {} pages, {:.1f} us a page", kCount,
                      static_cast<double>(ns) / 1000 / kCount));
    }
    barrier();
  }
}

void Host::discard() {
  if (options_.self == 0)
    expect(engine_->discard(kRange, 600) == Outcome::kGranted, "a discard is not granted");
  barrier();
  for (Gfn gfn = kRange; gfn < kRange + 600; gfn += 7)
    expect(load(gfn) == 0, fmt::format("page {} has contents after its discard", gfn));
  barrier();
  say("discard: done");
}

// The last host owns pages; host 0 reads them one by one.
void Host::faults() {
  if (options_.self == options_.hosts - 1) {
    for (Gfn gfn = 0; gfn < options_.faults; ++gfn) store(kFaults + gfn, 5 + gfn);
  }
  barrier();
  if (options_.self == 0) {
    std::vector<double> us;
    for (Gfn gfn = kFaults; gfn < kFaults + options_.faults; ++gfn) {
      const std::uint64_t start = now_ns();
      const Outcome outcome = engine_->acquire(gfn, Right::kShared);
      us.push_back(static_cast<double>(now_ns() - start) / 1000);
      expect(outcome == Outcome::kGranted && load(gfn) == 5 + gfn - kFaults, "a fault is wrong");
    }
    std::sort(us.begin(), us.end());
    const auto at = [&](double part) {
      return us[static_cast<std::size_t>(part * static_cast<double>(us.size() - 1))];
    };
    say(fmt::format(
        "{{\"case\": \"read fault\", \"transport\": \"{}\", \"spin_us\": {}, \"count\": "
        "{}, \"us\": {{\"min\": {:.1f}, \"median\": {:.1f}, \"p90\": {:.1f}}}}}",
        options_.transport, options_.spin_us, us.size(), us[0], at(0.5), at(0.9)));
  }
  barrier();
}

// The last host vanishes: its process ends, or (cut) its network does and it is silent. Whoever
// waits for it must not wait for ever.
void Host::death() {
  const Transport::Traffic traffic = transport_->traffic();
  say(fmt::format("traffic: {} messages and {} pages sent, {} and {} received",
                  traffic.messages_sent, traffic.pages_sent, traffic.messages_received,
                  traffic.pages_received));
  barrier();
  auto take_a_page = [&, random = std::mt19937(options_.self)]() mutable {
    return access(kStorm + random() % kStormPages, Right::kExclusive, [](std::uint64_t*) {});
  };
  const bool last_host = options_.self == options_.hosts - 1;
  if (last_host) {
    const std::uint64_t end = now_ns() + 300'000'000;
    while (now_ns() < end) take_a_page();
    if (!options_.cut) std::_Exit(wrong_ == 0 ? 0 : 1);
    expect(std::system("ip link set eth0 down") == 0, "the network cannot be cut");
  }
  std::uint64_t last = now_ns();
  // The pages may all be here when it happens, and then nothing has to be waited for.
  while (take_a_page() && engine_->stop_cause().empty()) last = now_ns();
  const std::uint64_t ns = now_ns() - last;
  say(fmt::format("death: {}; {:.1f} ms after the last access", engine_->stop_cause(),
                  static_cast<double>(ns) / 1e6));
  expect(engine_->stop_cause().find(" is lost") != std::string::npos, "the cause is not the loss");
  if (!last_host) return;
  // Long enough that the others find it out by its silence.
  std::this_thread::sleep_for(std::chrono::milliseconds(3 * kDeadAfterMs));
  expect(std::system("ip link set eth0 up") == 0, "the network stays cut");
}

unsigned number(const char* text, unsigned otherwise) {
  return text == nullptr ? otherwise : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

int run(int count, char** words) {
  Options options;
  options.self = number(std::getenv("LAB_HOST"), 0);
  options.hosts = number(std::getenv("LAB_HOSTS"), 1);
  if (count > 1) options.transport = words[1];
  if (count > 2) options.spin_us = number(words[2], 0);
  if (count > 3) options.faults = std::min(number(words[3], 400), 2000u);
  if (count > 4) options.cut = std::string(words[4]) == "cut";
  Host host(options);
  if (Status status = host.start(); !status) {
    fmt::print("FAIL {}\n", status.error().message);
    return 1;
  }
  host.barrier();
  host.values();
  host.storm();
  host.ranges();
  host.discard();
  host.faults();
  host.death();
  return host.wrong() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace xenspan::dsm

int main(int count, char** words) { return xenspan::dsm::run(count, words); }
