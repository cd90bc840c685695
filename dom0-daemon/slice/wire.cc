#include "dom0-daemon/slice/wire.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>

#include "config.h"
#ifdef HAVE_VERBS
#include "dsm-rdma/transport/verbs/shapes.h"
#include "dsm-rdma/transport/verbs/verbs_transport.h"
#endif

namespace xenspan::slice {

#ifdef HAVE_VERBS

Status allow_locked_memory(const Wire& wire, unsigned hosts) {
  if (!wire.verbs()) return {};
  rlimit limit{};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  if (limit.rlim_cur == RLIM_INFINITY) return {};
  const rlim_t needed = dsm::verbs::locked_bytes(dsm::tcp::MeshConfig().lanes, hosts);
  if (limit.rlim_cur >= needed) return {};
  const rlimit raised{needed, std::max(limit.rlim_max, needed)};
  if (::setrlimit(RLIMIT_MEMLOCK, &raised) == 0) return {};
  return Error{EPERM,
               fmt::format("RDMA to {} hosts takes {} MiB of locked memory, and the limit is "
                           "{} KiB: set LimitMEMLOCK=infinity for xenspand (`systemctl edit "
                           "xenspan`) or `ulimit -l`, or use --transport tcp",
                           hosts - 1, (needed + (1 << 20) - 1) >> 20, limit.rlim_max >> 10)};
}

Result<std::unique_ptr<dsm::Transport>> connect(const Wire& wire, dsm::tcp::MeshConfig mesh,
                                                dsm::tcp::Acceptor& acceptor) {
  mesh.dead_after_ms = wire.dead_after_ms;
  if (!wire.verbs()) return dsm::tcp::connect_mesh(mesh, acceptor);
  dsm::verbs::VerbsConfig config;
  config.hosts = mesh.hosts;
  config.pages = mesh.pages;
  config.lanes = mesh.lanes;
  config.timeout_ms = mesh.timeout_ms;
  config.wait = mesh.wait;
  config.serve_spin_us = mesh.serve_spin_us;
  config.dead_after_ms = mesh.dead_after_ms;
  config.device = wire.device;
  config.device_port = wire.port;
  config.gid_index = wire.gid_index;
  config.service_level = wire.service_level;
  config.traffic_class = wire.traffic_class;
  return dsm::verbs::connect_verbs(config, acceptor);
}

#else

Status allow_locked_memory(const Wire&, unsigned) { return {}; }

Result<std::unique_ptr<dsm::Transport>> connect(const Wire& wire, dsm::tcp::MeshConfig mesh,
                                                dsm::tcp::Acceptor& acceptor) {
  mesh.dead_after_ms = wire.dead_after_ms;
  if (!wire.verbs()) return dsm::tcp::connect_mesh(mesh, acceptor);
  return Error{ENOSYS, "this xenspan was built without RDMA: use --transport tcp"};
}

#endif

}  // namespace xenspan::slice
