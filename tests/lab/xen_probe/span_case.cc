// A spanning domain in its smallest form: two domains of one Xen are its slices, two engines in
// this process keep their memory coherent, over TCP.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <mutex>
#include <thread>

#include "dom0-daemon/hypervisor/xen/capabilities.h"
#include "dom0-daemon/hypervisor/xen/slice.h"
#include "dom0-daemon/hypervisor/xen/vcpu_context.h"
#include "dsm-rdma/transport/tcp/tcp_transport.h"
#include "tests/lab/xen_probe/cases.h"

namespace xenspan::lab {

using namespace hypervisor::xen;  // NOLINT: this program is about it

namespace {

constexpr unsigned kSlices = 2;
constexpr dsm::Gfn kPages = 4096;  // 16 MiB
// A granted page is kept until its vCPU has had a turn: here Dom0 and all vCPUs share a processor.
constexpr unsigned kHoldUs = 20'000;

struct Part {
  std::unique_ptr<Slice> slice;
  std::unique_ptr<dsm::tcp::Acceptor> acceptor;
  std::unique_ptr<dsm::Transport> transport;
  std::unique_ptr<dsm::Engine> engine;
  std::thread server;
};

class Span {
 public:
  Span(XenCalls& xen, DomainId home, DomainId remote) : xen_(xen), domains_{home, remote} {}
  ~Span() {
    for (Part& part : parts_) {
      if (part.engine) part.engine->stop("the test is over");
    }
    for (Part& part : parts_) {
      if (part.slice) part.slice->stop();
      if (part.server.joinable()) part.server.join();
    }
  }

  // vCPU 1 runs in the remote slice, vCPU 0 at home.
  Status start() {
    for (const DomainId domain : domains_) {
      const auto facts = xen_.domain(domain);
      if (!facts) return facts.error();
      if (Status can = may_be_slice(*facts); !can) return can;
      if (facts->paused) continue;
      if (Status paused = xen_.pause(domain); !paused) return paused;
    }
    for (unsigned i = 0; i < kSlices; ++i) {
      Slice::Config config;
      config.domain = domains_[i];
      config.vcpus = kSlices;
      config.here = std::uint64_t{1} << i;
      config.pages = kPages;
      config.on_interrupt = [this, i](unsigned vcpu, std::uint8_t vector) {
        parts_[1 - i].slice->deliver(vcpu, vector);
      };
      auto made = Slice::create(xen_, std::move(config));
      if (!made) return made.error();
      parts_[i].slice = std::move(*made);
    }
    fmt::print("rings are open\n");
    if (Status joined = join(); !joined) return joined;
    if (Status remote = parts_[1].slice->become_remote(); !remote) return remote;
    fmt::print("the remote slice is empty\n");
    for (unsigned i = 0; i < kSlices; ++i) {
      if (Status made = make_engine(i); !made) return made;
    }
    if (Status home = parts_[0].slice->become_home(*parts_[0].engine); !home) return home;
    fmt::print("the home's memory is the engine's\n");
    const auto context = take_vcpu(xen_, domains_[0], 1);
    if (!context) return context.error();
    if (Status put = put_vcpu(xen_, domains_[1], *context, monotonic_ns() - context->taken_ns);
        !put)
      return put;
    fmt::print("vCPU 1 has moved, at {:x}\n", context->registers.rip);
    for (Part& part : parts_) {
      if (Status running = part.slice->start(*part.engine); !running) return running;
    }
    return {};
  }

  std::string report() {
    std::string text;
    for (unsigned i = 0; i < kSlices; ++i) {
      const Slice::Counts counts = parts_[i].slice->counts();
      const auto stats = parts_[i].engine->stats(0);
      const auto facts = xen_.domain(domains_[i]);
      text += fmt::format(
          "slice {}: {} faults, {} interrupts sent to the other, {} pages served, {} pages of "
          "memory, {} events elsewhere{}\n",
          i, counts.faults, counts.interrupts_sent, stats.traffic.pages_sent,
          facts ? facts->pages : 0, counts.elsewhere,
          parts_[i].engine->stop_cause().empty() ? ""
                                                 : ", stopped: " + parts_[i].engine->stop_cause());
    }
    return text;
  }
  bool stopped() const { return !parts_[0].engine->stop_cause().empty(); }
  bool both_faulted() const {
    return parts_[0].slice->counts().faults > 0 && parts_[1].slice->counts().faults > 0;
  }

 private:
  Status join() {
    dsm::tcp::MeshConfig mesh;
    mesh.pages = kPages;
    mesh.lanes = 4;
    mesh.timeout_ms = 60'000;
    mesh.dead_after_ms = 60'000;
    for (unsigned i = 0; i < kSlices; ++i) {
      const auto port = static_cast<std::uint16_t>(7800 + i);
      auto made = listen(i, port);
      if (!made) return made.error();
      parts_[i].acceptor = std::move(*made);
      mesh.hosts.push_back({fmt::format("slice{}", i), "127.0.0.1", port});
    }
    Status failed;
    std::mutex lock;
    std::vector<std::thread> joining;
    for (Part& part : parts_) {
      joining.emplace_back([&] {
        auto made = dsm::tcp::connect_mesh(mesh, *part.acceptor);
        const std::lock_guard guard(lock);
        if (made) {
          part.transport = std::move(*made);
        } else {
          failed = made.error();
        }
      });
    }
    for (std::thread& each : joining) each.join();
    return failed;
  }
  static Result<std::unique_ptr<dsm::tcp::Acceptor>> listen(unsigned self, std::uint16_t port) {
    dsm::tcp::Acceptor::Config config;
    config.listening.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(port);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::bind(config.listening.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0 ||
        ::listen(config.listening.get(), 16) != 0)
      return system_error(errno, fmt::format("cannot listen on port {}", port));
    config.secret.fill(7);
    config.self = static_cast<dsm::HostId>(self);
    config.hosts = kSlices;
    return dsm::tcp::Acceptor::start(std::move(config));
  }
  Status make_engine(unsigned self) {
    Part& part = parts_[self];
    dsm::EngineConfig config;
    config.self = static_cast<dsm::HostId>(self);
    config.hosts = kSlices;
    config.pages = kPages;
    config.hold_us = kHoldUs;
    config.prefetch = 0;
    config.names = {"slice0", "slice1"};
    auto made = dsm::Engine::create(config, part.slice->pages(), *part.transport,
                                    [](const std::string& cause) {
                                      fmt::print("stopped: {}\n", cause);
                                      std::fflush(stdout);
                                    });
    if (!made) return made.error();
    part.engine = std::move(*made);
    part.server = std::thread([&part] { part.engine->serve(); });
    return {};
  }

  XenCalls& xen_;
  const DomainId domains_[kSlices];
  Part parts_[kSlices];
};

}  // namespace

int span(XenCalls& xen, DomainId home, DomainId remote) {
  sigset_t over;
  sigemptyset(&over);
  sigaddset(&over, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &over, nullptr);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  Span spanning(xen, home, remote);
  if (Status started = spanning.start(); !started) return fail(started.error().message);
  fmt::print("spanning\n");
  const timespec second{1, 0};
  for (unsigned i = 1; ::sigtimedwait(&over, nullptr, &second) != SIGTERM; ++i) {
    if (spanning.stopped()) break;
    if (i % 20 == 0) fmt::print("{}", spanning.report());
  }
  fmt::print("{}", spanning.report());
  return !spanning.stopped() && spanning.both_faulted() ? 0 : 1;
}

}  // namespace xenspan::lab
