// Several engines in one process, joined by real TCP over loopback, on a backend of plain memory
// that stands in for a guest's mapping: it remembers each right, lets a "vCPU" touch a page only
// while it has the right, and checks at every grant, over all hosts, that there is one writer or
// many readers. Used by the engine and TCP tests and by the raw engine benchmark. Errors of the
// check are counted, for the test to see.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "dsm-rdma/engine.h"
#include "dsm-rdma/transport/tcp/secure_stream.h"
#include "dsm-rdma/transport/tcp/tcp_transport.h"

namespace xenspan::dsm::test {

inline UniqueFd listen_on_loopback(std::uint16_t& port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof address;
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), bytes) != 0 ||
      ::listen(fd.get(), 256) != 0 ||
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &bytes) != 0) {
    std::abort();
  }
  port = ntohs(address.sin_port);
  return fd;
}

inline tcp::Secret some_secret(std::uint8_t seed) {
  tcp::Secret secret;
  for (std::size_t i = 0; i < secret.size(); ++i)
    secret[i] = static_cast<std::uint8_t>(seed + i * 7);
  return secret;
}

// Every host's right to every page, as mapped.
class RightsTable {
 public:
  RightsTable(unsigned hosts, Gfn pages) : hosts_(hosts), rights_(hosts * pages), locks_(pages) {}

  void set(HostId host, Gfn gfn, Right right) {
    const std::lock_guard guard(locks_[gfn]);
    if (right != Right::kInvalid) {
      for (unsigned other = 0; other < hosts_; ++other) {
        if (other == host) continue;
        const Right theirs = rights_[gfn * hosts_ + other];
        if (theirs == Right::kExclusive ||
            (right == Right::kExclusive && theirs != Right::kInvalid))
          ++violations;
      }
    }
    rights_[gfn * hosts_ + host] = right;
  }
  std::atomic<unsigned> violations{0};

 private:
  const unsigned hosts_;
  std::vector<Right> rights_;
  std::vector<std::mutex> locks_;
};

class MemoryBackend final : public PageBackend {
 public:
  MemoryBackend(HostId self, Gfn pages, RightsTable& table)
      : self_(self), pages_(pages), table_(table), mapping_(pages) {
    memory_ = static_cast<std::byte*>(::mmap(nullptr, pages * kPageSize, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }
  ~MemoryBackend() override { ::munmap(memory_, pages_ * kPageSize); }

  // What a vCPU does: `touch` runs with the page in place and cannot lose it meanwhile. false: no
  // right now.
  bool touch(Gfn gfn, Right needed, const std::function<void(std::byte*)>& touch) {
    Mapped& mapped = mapping_[gfn];
    const std::lock_guard guard(mapped.lock);
    if (mapped.right < needed) return false;
    touch(frame(gfn));
    return true;
  }
  Right mapped(Gfn gfn) {
    const std::lock_guard guard(mapping_[gfn].lock);
    return mapping_[gfn].right;
  }

  bool frames_keep_still() const noexcept override { return !frames_move; }
  std::byte* frame(Gfn gfn) noexcept override {
    if (const unsigned us = frame_takes_us; us != 0) ::usleep(us);
    return memory_ + gfn * kPageSize;
  }
  int grant(Gfn first, std::uint32_t count, Right right) noexcept override {
    ++grants;
    for (Gfn gfn = first; gfn < first + count; ++gfn) set(gfn, right);
    return fail_grant.load() ? ENOMEM : 0;
  }
  int protect(Gfn gfn) noexcept override {
    set(gfn, Right::kShared);
    return 0;
  }
  int withdraw(Gfn gfn) noexcept override {
    set(gfn, Right::kInvalid);
    return 0;
  }
  int drop_frame(Gfn gfn) noexcept override {
    ++drops;
    return ::madvise(frame(gfn), kPageSize, MADV_DONTNEED);
  }
  int protect_run(Gfn first, std::uint32_t count) noexcept override {
    in_runs[kProtected] += count;
    return PageBackend::protect_run(first, count);
  }
  int withdraw_run(Gfn first, std::uint32_t count) noexcept override {
    in_runs[kWithdrawn] += count;
    return PageBackend::withdraw_run(first, count);
  }
  int drop_run(Gfn first, std::uint32_t count) noexcept override {
    in_runs[kDropped] += count;
    return PageBackend::drop_run(first, count);
  }
  int raise_run(Gfn first, std::uint32_t count) noexcept override {
    in_runs[kRaised] += count;
    return PageBackend::raise_run(first, count);
  }
  int fill_run(Gfn first, std::uint32_t count, Right right, const std::byte* const* contents,
               bool fresh) noexcept override {
    in_runs[kFilled] += count;
    return PageBackend::fill_run(first, count, right, contents, fresh);
  }
  Run fault_around(Gfn gfn) noexcept override { return {gfn & ~Gfn{around - 1}, around}; }

  bool may_prefetch(Gfn gfn, Right) const noexcept override {
    return gfn < prefetch_below && prefetch_answers.fetch_sub(1) > 0;
  }

  std::uint32_t around = 1;  // a power of two
  std::atomic<Gfn> prefetch_below{~Gfn{0}};
  mutable std::atomic<int> prefetch_answers{1 << 30};  // so many times true
  std::atomic<unsigned> grants{0}, drops{0};
  // Pages whose mapping was changed by calls for several.
  enum InRuns { kProtected, kWithdrawn, kRaised, kFilled, kDropped };
  std::array<std::atomic<unsigned>, 5> in_runs{};
  std::atomic<bool> fail_grant{false};
  std::atomic<unsigned> frame_takes_us{0};
  std::atomic<bool> frames_move{false};

 private:
  struct Mapped {
    std::mutex lock;
    Right right = Right::kInvalid;
  };
  void set(Gfn gfn, Right right) {
    const std::lock_guard guard(mapping_[gfn].lock);
    table_.set(self_, gfn, right);
    mapping_[gfn].right = right;
  }

  const HostId self_;
  const Gfn pages_;
  RightsTable& table_;
  std::vector<Mapped> mapping_;
  std::byte* memory_;
};

struct ClusterOptions {
  unsigned hosts = 2;
  Gfn pages = 1024;
  unsigned lanes = 4;
  bool encrypt = false;
  unsigned hold_us = 20;
  unsigned wait_spin_us = 30, serve_spin_us = 0;
  std::uint32_t around = 1;
  unsigned prefetch = 0;  // most tests count what they cause; 0: nor anything else that guesses
  FeatureSet without{};
  // Service threads as in the product: SCHED_FIFO (needs CAP_SYS_NICE), host i's on core i.
  bool realtime = false;
  std::function<void(const std::vector<tcp::Peer>&)>
      before_mesh{};  // all listen, nobody has connected
};

inline void pin_to(pthread_t thread, unsigned core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core % std::max(1u, std::thread::hardware_concurrency()), &cores);
  ::pthread_setaffinity_np(thread, sizeof cores, &cores);
}
inline void make_realtime(std::thread& thread, unsigned core) {
  const sched_param priority{1};
  pin_to(thread.native_handle(), core);
  ::pthread_setschedparam(thread.native_handle(), SCHED_FIFO, &priority);
}

class Cluster {
 public:
  explicit Cluster(const ClusterOptions& options)
      : options_(options), rights(options.hosts, options.pages), hosts_(options.hosts) {
    tcp::MeshConfig mesh;
    mesh.pages = options.pages;
    mesh.lanes = options.lanes;
    mesh.wait = {options.wait_spin_us, 0};
    mesh.serve_spin_us = options.serve_spin_us;
    for (unsigned i = 0; i < options.hosts; ++i) {
      std::uint16_t port;
      tcp::Acceptor::Config config;
      config.listening = listen_on_loopback(port);
      config.secret = some_secret(1);
      config.self = static_cast<HostId>(i);
      config.hosts = options.hosts;
      config.encrypt = options.encrypt;
      config.log = [this](const std::string& line) {
        const std::lock_guard guard(log_lock_);
        log_ += line + "\n";
      };
      auto started = tcp::Acceptor::start(std::move(config));
      hosts_[i].acceptor = std::move(*started);
      mesh.hosts.push_back({"h" + std::to_string(i), "127.0.0.1", port});
    }
    ports = mesh.hosts;
    if (options.before_mesh) options.before_mesh(ports);
    start(mesh);
  }
  ~Cluster() { stop_all(); }

  void stop_all() {
    for (unsigned i = 0; i < hosts_.size(); ++i) stop(i, "the test is over");
  }
  void stop(unsigned host, const char* cause) {
    Host& each = hosts_[host];
    if (each.engine) each.engine->stop(cause);
    if (each.server.joinable()) each.server.join();
  }
  // Everything of the host at once, as when its process is killed.
  void kill(unsigned host) {
    stop(host, "killed");
    hosts_[host].engine.reset();
    hosts_[host].transport.reset();
    hosts_[host].acceptor.reset();
  }

  Engine& engine(unsigned host) { return *hosts_[host].engine; }
  MemoryBackend& backend(unsigned host) { return *hosts_[host].backend; }
  Transport& transport(unsigned host) { return *hosts_[host].transport; }
  tcp::Acceptor& acceptor(unsigned host) { return *hosts_[host].acceptor; }
  const std::string& failure() const { return failure_; }
  std::string log() {
    const std::lock_guard guard(log_lock_);
    return log_;
  }

  // As a vCPU: faults until the access goes through. false: the domain has stopped.
  bool access(unsigned host, Gfn gfn, Right needed, const std::function<void(std::byte*)>& touch) {
    while (!backend(host).touch(gfn, needed, touch)) {
      if (engine(host).acquire(gfn, needed) == Outcome::kStopped) return false;
    }
    return true;
  }
  bool store(unsigned host, Gfn gfn, std::uint64_t value) {
    return access(host, gfn, Right::kExclusive,
                  [&](std::byte* page) { std::memcpy(page, &value, sizeof value); });
  }
  std::uint64_t load(unsigned host, Gfn gfn) {
    std::uint64_t value = ~std::uint64_t{0};
    access(host, gfn, Right::kShared,
           [&](std::byte* page) { std::memcpy(&value, page, sizeof value); });
    return value;
  }

 private:
  struct Host {
    std::unique_ptr<tcp::Acceptor> acceptor;
    std::unique_ptr<MemoryBackend> backend;
    std::unique_ptr<Transport> transport;
    std::unique_ptr<Engine> engine;
    std::thread server;
  };

  void start(const tcp::MeshConfig& mesh) {
    std::vector<std::thread> joining;
    std::mutex failed;
    for (unsigned i = 0; i < hosts_.size(); ++i) {
      joining.emplace_back([&, i] {
        auto made = tcp::connect_mesh(mesh, *hosts_[i].acceptor);
        const std::lock_guard guard(failed);
        if (made) {
          hosts_[i].transport = std::move(*made);
        } else {
          failure_ += made.error().message + "\n";
        }
      });
    }
    for (std::thread& each : joining) each.join();
    if (!failure_.empty()) return;
    for (unsigned i = 0; i < hosts_.size(); ++i) start_engine(i, mesh);
  }
  void start_engine(unsigned i, const tcp::MeshConfig& mesh) {
    Host& host = hosts_[i];
    host.backend = std::make_unique<MemoryBackend>(static_cast<HostId>(i), options_.pages, rights);
    host.backend->around = options_.around;
    EngineConfig config;
    config.self = static_cast<HostId>(i);
    config.hosts = options_.hosts;
    config.pages = options_.pages;
    config.hold_us = options_.hold_us;
    config.prefetch = options_.prefetch;
    config.without = options_.without;
    if (options_.prefetch == 0) {
      config.without.add(Feature::kMigratory);
      config.without.add(Feature::kReadMostly);
      config.without.add(Feature::kReturning);
    }
    for (const tcp::Peer& peer : mesh.hosts) config.names.push_back(peer.name);
    auto made = Engine::create(config, *host.backend, *host.transport,
                               [this](const std::string&) { ++stops; });
    if (!made) {
      failure_ += made.error().message;
      return;
    }
    host.engine = std::move(*made);
    host.server = std::thread([&host] { host.engine->serve(); });
    if (options_.realtime) make_realtime(host.server, i);
  }

  const ClusterOptions options_;
  std::mutex log_lock_;
  std::string log_, failure_;

 public:
  RightsTable rights;
  std::vector<tcp::Peer> ports;
  std::atomic<unsigned> stops{0};

 private:
  std::vector<Host> hosts_;
};

}  // namespace xenspan::dsm::test
