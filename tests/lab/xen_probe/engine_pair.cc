#include "tests/lab/xen_probe/engine_pair.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace xenspan::lab {
namespace {

Result<std::unique_ptr<dsm::tcp::Acceptor>> listen(unsigned self, std::uint16_t port) {
  dsm::tcp::Acceptor::Config config;
  config.listening.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int again = 1;
  ::setsockopt(config.listening.get(), SOL_SOCKET, SO_REUSEADDR, &again, sizeof again);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(port);
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::bind(config.listening.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0 ||
      ::listen(config.listening.get(), 16) != 0)
    return system_error(errno, fmt::format("cannot listen on port {}", port));
  config.secret.fill(7);
  config.self = static_cast<dsm::HostId>(self);
  config.hosts = EnginePair::kEngines;
  return dsm::tcp::Acceptor::start(std::move(config));
}

}  // namespace

Status EnginePair::join(dsm::Gfn pages, unsigned hold_us) {
  pages_ = pages;
  hold_us_ = hold_us;
  dsm::tcp::MeshConfig mesh;
  mesh.pages = pages;
  mesh.lanes = 4;
  mesh.timeout_ms = 60'000;
  mesh.dead_after_ms = 60'000;
  for (unsigned i = 0; i < kEngines; ++i) {
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

Status EnginePair::start(unsigned self, dsm::PageBackend& backend) {
  Part& part = parts_[self];
  dsm::EngineConfig config;
  config.self = static_cast<dsm::HostId>(self);
  config.hosts = kEngines;
  config.pages = pages_;
  config.hold_us = config.least_hold_us = hold_us_;
  config.prefetch = 0;
  config.names = {"slice0", "slice1"};
  auto made = dsm::Engine::create(config, backend, *part.transport, [](const std::string& cause) {
    fmt::print("stopped: {}\n", cause);
    std::fflush(stdout);
  });
  if (!made) return made.error();
  part.engine = std::move(*made);
  part.server = std::thread([&part] { part.engine->serve(); });
  return {};
}

void EnginePair::stop() {
  for (Part& part : parts_) {
    if (part.engine) part.engine->stop("the test is over");
  }
}

EnginePair::~EnginePair() {
  stop();
  for (Part& part : parts_) {
    if (part.server.joinable()) part.server.join();
  }
}

}  // namespace xenspan::lab
