#include "dom0-daemon/slice/worker.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "base/boot_clock.h"
#include "base/log.h"
#include "dom0-daemon/hypervisor/usermode/service_threads.h"
#include "dom0-daemon/slice/descriptors.h"
#include "dom0-daemon/slice/listening.h"
#include "dom0-daemon/slice/privileges.h"
#include "dom0-daemon/slice/report.h"
#include "dom0-daemon/slice/xen_worker.h"

namespace xenspan::slice {
namespace {

using hypervisor::usermode::Slice;
using nlohmann::json;

constexpr int kOwnFailure = 125, kCannotExecute = 126, kNotFound = 127;  // as env(1) and nohup(1)
constexpr int kCounterPeriodMs = 1000;

int status_of(const Error& error) {
  switch (error.code) {
    case ENOENT:
    case ENOTDIR: return kNotFound;
    case EACCES:
    case ENOEXEC:
    case EISDIR: return kCannotExecute;
    default: return kOwnFailure;
  }
}

}  // namespace

int Worker::run() {
  Status status = create();
  if (status.ok()) status = join();
  if (!status.ok()) {
    fail(kOwnFailure, status.error().message);
    while (control_.receive().ok()) {  // until the daemon closes or kills
    }
    return 1;
  }
  serve();
  return 0;
}

Result<ControlChannel::Packet> Worker::expect(const char* op) {
  auto packet = control_.receive();
  if (!packet) return packet;
  const std::string got = packet->body.value("op", "");
  if (got == "stop") ::_exit(0);
  if (got != op)
    return Error{EPROTO,
                 std::string("xenspand sent `") + got + "` where `" + op + "` was expected"};
  return packet;
}

Status Worker::create() {
  auto packet = expect("create");
  if (!packet) return packet.error();
  if (packet->body.value("backend", "") == "xen") ::_exit(work_for_xen(control_, packet->body));
  auto order = parse_order(packet->body);
  if (!order) return order.error();
  order_ = std::move(*order);
  given_ = std::move(packet->descriptors);
  log::open("xenspan-slice", order_.name + "@" + order_.slice.hosts[order_.slice.self]);
  keep_to_cores(order_);
  auto slice = Slice::create(
      [this](const hypervisor::usermode::Home::Services::End& end) {
        if (!over_.exchange(true))
          control_.send({{"event", "exited"},
                         {"status", end.status},
                         {"signal", end.signo},
                         {"message", end.message}});
      },
      [this](const std::string& cause) { fail(kOwnFailure, cause); });
  if (!slice) return slice.error();
  slice_ = std::move(*slice);
  if (Status status = listen(); !status.ok()) return status;
  const auto hosts = static_cast<unsigned>(order_.slice.hosts.size());
  if (Status status = allow_locked_memory(order_.wire, hosts); !status.ok()) return status;
  return become_user(order_);
}

Status Worker::listen() {
  auto listening = listen_at(order_.bind);
  if (!listening) return listening.error();
  listening_ = std::move(listening->socket);
  control_.send({{"event", "listening"}, {"port", listening->port}});
  return {};
}

Status Worker::join() {
  auto packet = expect("peers");
  if (!packet) return packet.error();
  const auto ports = packet->body.value("ports", std::vector<std::uint16_t>{});
  if (ports.size() != order_.slice.hosts.size())
    return Error{EPROTO, "xenspand's `ports` does not match `hosts`"};
  order_.slice.ports = ports;
  order_.slice.hosts_may_join = !order_.wire.verbs();
  order_.slice.connect = [this](const auto& mesh, auto& acceptor) {
    return connect(order_.wire, mesh, acceptor);
  };
  // Elsewhere there is no way to go on without a host that is lost (dsm-rdma/survival.h).
  if (!order_.wire.verbs() && !order_.slice.without.has(dsm::Feature::kParallel))
    order_.slice.on_peer_lost = [this](dsm::HostId host, const std::string& why) {
      control_.send({{"event", "peer-lost"}, {"host", host}, {"error", why}});
    };
  const bool at_home = order_.slice.self == order_.slice.home;
  if (at_home) {
    ::umask(order_.umask);
    if (::chdir(order_.cwd.c_str()) != 0) return system_error(errno, "cannot enter " + order_.cwd);
  } else if (::chdir("/") != 0) {
    return system_error(errno, "cannot enter /");
  }
  if (Status status = slice_->join(order_.slice, std::move(listening_)); !status.ok())
    return status;
  if (!at_home && !order_.slice.heir)
    if (Status status = confine(); !status.ok()) return status;
  if (hypervisor::usermode::real_time_refused())
    log::warning(
        "no right to real-time priority: a busy vCPU will delay remote faults; start xenspand as "
        "root");
  control_.send({{"event", "ready"}});
  return {};
}

Status Worker::start() {
  if (Status status = release_guest_descriptors(order_.descriptors, std::move(given_));
      !status.ok())
    return status;
  given_.clear();
  if (Status status = slice_->run(order_.program, order_.arguments, order_.environment);
      !status.ok())
    return status;
  control_.send({{"event", "running"}, {"pid", ::getpid()}});
  return {};
}

void Worker::serve() {
  pollfd waiting{control_.fd(), POLLIN, 0};
  std::int64_t next_counters = boot_ms() + kCounterPeriodMs;
  for (;;) {
    const auto until = std::clamp<std::int64_t>(next_counters - boot_ms(), 0, kCounterPeriodMs);
    const int ready = ::poll(&waiting, 1, obey_lease(static_cast<int>(until)));
    if (ready == 0 && boot_ms() >= next_counters) {
      next_counters = boot_ms() + kCounterPeriodMs;
      if (!over_) control_.send(counters_event(*slice_));
    }
    if (ready <= 0) continue;
    const auto packet = control_.receive();
    if (!packet || !obey(*packet))
      ::_exit(0);  // threads of the guest may be anywhere: no destructors
  }
}

int Worker::obey_lease(int most) {
  if (lease_end_ == 0) return most;
  const std::int64_t left = lease_end_ - boot_ms();
  if (left > 0) return static_cast<int>(std::min<std::int64_t>(left, most));
  pollfd waiting{control_.fd(), POLLIN, 0};
  if (::poll(&waiting, 1, 0) != 0) return 0;  // it may be the next lease
  // The whole process stands still until the daemon lets it go on: with its vCPUs.
  control_.send({{"event", "stands"}});
  if (::tgkill(::getpid(), ::gettid(), SIGSTOP) != 0) ::_exit(1);
  control_.send({{"event", "goes-on"}});
  return 0;
}

bool Worker::obey(const ControlChannel::Packet& packet) {
  const json& body = packet.body;
  const std::string op = body.value("op", "");
  if (op == "stop") return false;
  if (op == "start") {
    if (const Status status = start(); !status.ok())
      fail(status_of(status.error()), status.error().message);
  } else if (op == "signal") {
    slice_->outside_signal(body.value("signo", 0));
  } else if (op == "stats") {
    json event = stats_event(*slice_, order_.hottest, body.value("id", json()));
    event["transport"] = order_.wire.transport;
    control_.send(event);
  } else if (op == "lease") {
    lease_end_ = body.value("until", std::int64_t{0});
  } else if (op == "halt") {
    slice_->stop(body.value("cause", "stopped"));
  } else if (op == "holdings") {
    using hypervisor::usermode::Priority;
    hypervisor::usermode::start_service_thread("xs-holdings", Priority::kHouse, [this, body] {
      control_.send(holdings_event(*slice_, body));
    });
  } else if (op == "resolve" && slice_->home() != nullptr) {
    resolve(body.value("bytes", std::vector<std::uint64_t>{}), body.value("id", json()));
  } else if (op == "migrate" && slice_->home() != nullptr) {
    migrate(body.value("vcpu", ~0U),
            {body.value("host", dsm::HostId{dsm::kMaxHosts}), body.value("core", -1)},
            body.value("id", json()));
  } else if (!take_step(control_, op, body) && !take_survival_step(control_, op, body)) {
    take_role_step(control_, *slice_, op, body);
  }
  return true;
}

// In a thread of its own: the layout may be held by a call that waits for another host, and this
// thread has to obey.
void Worker::resolve(std::vector<std::uint64_t> bytes, json id) {
  using hypervisor::usermode::Priority;
  hypervisor::usermode::start_service_thread(
      "xs-names", Priority::kHouse, [this, bytes = std::move(bytes), id = std::move(id)] {
        control_.send({{"event", "resolved"}, {"id", id}, {"names", slice_->home()->names(bytes)}});
      });
}

// In a thread of its own, because it waits for the vCPU's threads.
void Worker::migrate(unsigned vcpu, hypervisor::usermode::VcpuPlace to, json id) {
  using hypervisor::usermode::Priority;
  hypervisor::usermode::start_service_thread(
      "xs-migrate", Priority::kCalls, [this, vcpu, to, id = std::move(id)] {
        json event{{"event", "migrated"}, {"id", id}};
        if (const auto moved = slice_->home()->migrate(vcpu, to)) {
          event["threads"] = moved->threads;
          event["waiting"] = moved->waiting;
          event["us"] = moved->ns / 1000;
        } else {
          event["error"] = moved.error().message;
        }
        control_.send(event);
      });
}

void Worker::fail(int status, const std::string& cause) {
  if (over_.exchange(true)) return;
  control_.send({{"event", "failed"}, {"status", status}, {"error", cause}});
}

}  // namespace xenspan::slice
