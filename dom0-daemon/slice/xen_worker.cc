#include "dom0-daemon/slice/xen_worker.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <fstream>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "dom0-daemon/hypervisor/xen/capabilities.h"
#include "dom0-daemon/hypervisor/xen/home_pages.h"
#include "dom0-daemon/hypervisor/xen/slice.h"
#include "dom0-daemon/hypervisor/xen/vcpu_context.h"
#include "dom0-daemon/slice/listening.h"
#include "dom0-daemon/slice/member_steps.h"
#include "dom0-daemon/slice/report.h"
#include "dom0-daemon/slice/xen_lines.h"
#include "dom0-daemon/slice/xen_moves.h"
#include "dom0-daemon/slice/xen_order.h"

namespace xenspan::slice {
namespace {

using hypervisor::xen::Slice;
using hypervisor::xen::VcpuContext;
using hypervisor::xen::XenCalls;
using nlohmann::json;
using Kind = XenLines::Kind;

constexpr int kOwnFailure = 125;
constexpr int kCounterPeriodMs = 1000;
constexpr int kConnectMs = 60'000;
constexpr std::chrono::seconds kHeardLimit{5};  // for the home to have heard why a slice stops

// What travels before a vCPU's records: when it was taken, and by whose clock.
struct Departure {
  std::uint64_t taken_ns = 0;
  std::array<char, 36> boot{};
};

std::array<char, 36> this_boot() {
  std::array<char, 36> id{};
  std::ifstream("/proc/sys/kernel/random/boot_id").read(id.data(), id.size());
  return id;
}

class XenWorker : public MemberSteps {
 public:
  XenWorker(ControlChannel& control, std::unique_ptr<XenCalls> xen, XenOrder order)
      : control_(control), xen_(std::move(xen)), order_(std::move(order)) {
    order_.hosts.reserve(dsm::kMaxHosts);  // others read names meanwhile
  }

  Status join();
  void serve();
  void fail(const std::string& cause);

 private:
  Status connect_all(const std::vector<std::uint16_t>& ports);
  void make_moves();
  Status make_slice();
  Status make_engine();
  Status run_home();
  Status send_vcpus();
  Status pin_vcpus();
  Result<std::vector<std::byte>> take(unsigned vcpu);
  Status put(unsigned vcpu, XenMoves::Bytes state);
  void on_message(XenLines::Message message);
  Status run_as_told(const XenLines::Message& message);
  void on_stop(const std::string& cause);
  void stop_domain(const std::string& cause);
  int tell_to_run(dsm::HostId host);
  void start_serving();
  void migrate(unsigned vcpu, dsm::HostId to, const json& id);

  Status add_peer(dsm::HostId host, const dsm::tcp::Peer& peer) override;
  Status admit_peer(dsm::HostId host) override;
  Status remove_peer(dsm::HostId host) override;
  void learn_slots(const dsm::SlotTable& table) override;
  Result<unsigned> vacate(dsm::HostId host) override;
  void rest() override { slice_->quiet(); }
  dsm::Engine& engine() override { return *engine_; }

  bool obey(const json& body);
  json stats(const json& id);
  // The guest's memory is no longer to be trusted: its vCPUs stand from now on.
  void halt() noexcept;

  ControlChannel& control_;
  const std::unique_ptr<XenCalls> xen_;
  XenOrder order_;  // names of hosts that join are added, by one thread
  std::unique_ptr<dsm::tcp::Acceptor> acceptor_;
  std::unique_ptr<dsm::Transport> transport_;
  std::unique_ptr<Slice> slice_;
  std::unique_ptr<dsm::Engine> engine_;
  std::unique_ptr<XenLines> lines_;
  std::unique_ptr<XenMoves> moves_;
  std::atomic<bool> serving_{false};
  std::mutex lock_;
  std::condition_variable heard_;
  bool home_has_heard_ = false;       // why this slice stops; under lock_
  std::atomic<bool> touched_{false};  // the guest's memory is the engine's
  std::atomic<bool> halted_{false};
  std::atomic<bool> over_{false};  // exited or failed has been reported
};

Status XenWorker::join() {
  if (Status status = allow_locked_memory(order_.wire, static_cast<unsigned>(order_.hosts.size()));
      !status)
    return status;
  auto listening = listen_at(order_.bind);
  if (!listening) return listening.error();
  dsm::tcp::Acceptor::Config config;
  config.listening = std::move(listening->socket);
  config.secret = order_.secret;
  config.self = order_.self;
  config.hosts = dsm::kMaxHosts;
  config.encrypt = order_.encrypt;
  config.log = [](const std::string& line) { log::warning("{}", line); };
  auto accepting = dsm::tcp::Acceptor::start(std::move(config));
  if (!accepting) return accepting.error();
  acceptor_ = std::move(*accepting);
  control_.send({{"event", "listening"}, {"port", listening->port}});

  auto packet = control_.receive();
  if (!packet) return packet.error();
  const std::string op = packet->body.value("op", "");
  if (op == "stop") ::_exit(0);
  const auto ports = packet->body.value("ports", std::vector<std::uint16_t>{});
  if (op != "peers" || ports.size() != order_.hosts.size())
    return Error{EPROTO, "xenspand's `peers` is missing or does not match `hosts`"};
  if (Status connected = connect_all(ports); !connected) return connected;
  if (!order_.home()) {
    // Before anybody can ask for a page; the home's follows when it has nothing to wait for.
    touched_ = true;
    if (Status made = make_slice(); !made) return made;
    if (Status empty = slice_->become_remote(); !empty) return empty;
    if (Status made = make_engine(); !made) return made;
  }
  control_.send({{"event", "ready"}});
  return {};
}

Status XenWorker::connect_all(const std::vector<std::uint16_t>& ports) {
  dsm::tcp::MeshConfig mesh;
  for (std::size_t host = 0; host < order_.hosts.size(); ++host)
    mesh.hosts.push_back(
        {order_.hosts[host], order_.addresses[host], ports[host], order_.incarnations[host]});
  mesh.pages = order_.pages;
  // A vCPU has one fault at a time.
  mesh.lanes = std::clamp(static_cast<unsigned>(order_.vcpus.size()), 2U, dsm::tcp::kMaxLanes);
  mesh.timeout_ms = kConnectMs;
  auto made = connect(order_.wire, mesh, *acceptor_);
  if (!made) return made.error();
  transport_ = std::move(*made);

  make_moves();
  XenLines::Config lines;
  lines.self = order_.self;
  lines.addresses = order_.addresses;
  lines.ports = ports;
  lines.secret = order_.secret;
  lines.encrypt = order_.encrypt;
  lines.handle = [this](XenLines::Message message) { on_message(std::move(message)); };
  auto opened = XenLines::open(*acceptor_, std::move(lines));
  if (!opened) return opened.error();
  lines_ = std::move(*opened);
  return {};
}

// At the start all vCPUs are on the home; the others know where they will be.
void XenWorker::make_moves() {
  std::vector<dsm::HostId> places;
  for (const XenOrder::Vcpu& vcpu : order_.vcpus)
    places.push_back(order_.home() ? order_.self : vcpu.host);
  XenMoves::Ways ways;
  ways.take = [this](unsigned vcpu) { return take(vcpu); };
  ways.put = [this](unsigned vcpu, XenMoves::Bytes state) { return put(vcpu, state); };
  ways.deliver = [this](unsigned vcpu, std::uint8_t vector) { slice_->deliver(vcpu, vector); };
  ways.send = [this](dsm::HostId to, Kind kind, unsigned vcpu, std::uint64_t value,
                     XenMoves::Bytes bytes) { return lines_->send(to, kind, vcpu, value, bytes); };
  ways.quiet = [this] { slice_->quiet(); };
  moves_ = std::make_unique<XenMoves>(order_.self, std::move(places), std::move(ways));
}

Status XenWorker::make_slice() {
  Slice::Config config;
  config.domain = order_.domain;
  config.vcpus = static_cast<unsigned>(order_.vcpus.size());
  config.here = order_.home() ? ~std::uint64_t{0} >> (64 - config.vcpus) : 0;
  config.pages = order_.pages;
  config.on_interrupt = [this](unsigned vcpu, std::uint8_t vector) {
    moves_->interrupt(vcpu, vector);
  };
  config.on_stop = [this](const std::string& cause) { stop_domain(cause); };
  auto made = Slice::create(*xen_, std::move(config));
  if (!made) return made.error();
  slice_ = std::move(*made);
  return {};
}

Status XenWorker::make_engine() {
  dsm::EngineConfig config;
  config.self = order_.self;
  config.hosts = order_.joins() ? order_.first_hosts : static_cast<unsigned>(order_.hosts.size());
  config.most_hosts = dsm::kMaxHosts;
  for (dsm::HostId host = 0; host < order_.hosts.size(); ++host)
    if (!order_.hosts[host].empty()) config.members |= dsm::mask_of(host);
  config.pages = order_.pages;
  config.prefetch = 0;  // Xen reports one page at a time
  if (order_.hold_us != 0) config.hold_us = config.least_hold_us = order_.hold_us;
  config.names = order_.hosts;
  auto made = dsm::Engine::create(config, slice_->pages(), *transport_,
                                  [this](const std::string& cause) { on_stop(cause); });
  if (!made) return made.error();
  engine_ = std::move(*made);
  // One that joins first has to hear who manages what.
  if (!order_.joins()) start_serving();
  return {};
}

void XenWorker::start_serving() {
  if (!serving_.exchange(true)) std::thread([this] { engine_->serve(); }).detach();
}

// The guest stands from the first line to the last.
Status XenWorker::run_home() {
  if (Status paused = xen_->pause(order_.domain); !paused) return paused;
  if (Status made = make_slice(); !made) {
    if (Status running = xen_->unpause(order_.domain); !running) return running;
    return made;
  }
  touched_ = true;
  if (Status made = make_engine(); !made) return made;
  if (Status mine = slice_->become_home(*engine_); !mine) return mine;
  if (Status sent = send_vcpus(); !sent) return sent;
  if (Status pinned = pin_vcpus(); !pinned) return pinned;
  if (Status running = slice_->start(*engine_); !running) return running;
  for (dsm::HostId host = 1; host < order_.hosts.size(); ++host)
    if (const int error = tell_to_run(host); error != 0)
      return system_error(error,
                          fmt::format("cannot reach the slice on host {}", order_.hosts[host]));
  control_.send({{"event", "running"}, {"pid", ::getpid()}});
  return {};
}

int XenWorker::tell_to_run(dsm::HostId host) {
  const std::string stay = hypervisor::xen::to_text(slice_->home_pages());
  return lines_->send(host, Kind::kRun, 0, 0, std::as_bytes(std::span(stay.data(), stay.size())));
}

// One after the other: away as short as can be.
Status XenWorker::send_vcpus() {
  for (std::uint32_t vcpu = 0; vcpu < order_.vcpus.size(); ++vcpu) {
    const dsm::HostId host = order_.vcpus[vcpu].host;
    if (Status moved = moves_->move(vcpu, host, {}); !moved)
      return Error{EIO, fmt::format("vCPU {} cannot go to host {}: {}", vcpu, order_.hosts[host],
                                    moved.error().message)};
  }
  return {};
}

Status XenWorker::pin_vcpus() {
  for (unsigned vcpu = 0; vcpu < order_.vcpus.size(); ++vcpu) {
    const XenOrder::Vcpu& each = order_.vcpus[vcpu];
    if (each.host != order_.self || each.cpu < 0) continue;
    const unsigned cpu[] = {static_cast<unsigned>(each.cpu)};
    if (Status pinned = xen_->pin_vcpu(order_.domain, vcpu, cpu); !pinned) return pinned;
  }
  return {};
}

// From the thread that reads the sender's line.
void XenWorker::on_message(XenLines::Message message) {
  // An interrupt for a guest that has no slice here yet cannot be.
  if (slice_ == nullptr) return;
  switch (moves_->handle(message)) {
    case XenMoves::Handled::kYes: return;
    case XenMoves::Handled::kLost: return stop_domain(moves_->lost());
    case XenMoves::Handled::kNo: break;
  }
  const std::string text(reinterpret_cast<const char*>(message.bytes.data()), message.bytes.size());
  if (order_.home() && message.kind == Kind::kStops) {
    // Before it stops: what is seen of that here would be the loss of its host.
    fail(fmt::format("host {}: {}", order_.hosts[message.from], text));
    lines_->send(message.from, Kind::kStopsHeard, 0, 0);
  } else if (message.from == 0 && message.kind == Kind::kStopsHeard) {
    const std::lock_guard guard(lock_);
    home_has_heard_ = true;
    heard_.notify_all();
  } else if (message.from == 0 && message.kind == Kind::kRun) {
    if (Status running = run_as_told(message); !running) stop_domain(running.error().message);
  }
}

Status XenWorker::run_as_told(const XenLines::Message& message) {
  slice_->stay_home(hypervisor::xen::home_pages_from(
      {reinterpret_cast<const char*>(message.bytes.data()), message.bytes.size()}));
  if (Status pinned = pin_vcpus(); !pinned) return pinned;
  return slice_->start(*engine_);
}

// It is taken from here and on its way from now on.
Result<std::vector<std::byte>> XenWorker::take(unsigned vcpu) {
  const auto context = slice_->take_vcpu(vcpu);
  if (!context) return context.error();
  const Departure departure{context->taken_ns, this_boot()};
  std::vector<std::byte> bytes(sizeof departure);
  std::memcpy(bytes.data(), &departure, sizeof departure);
  bytes.insert(bytes.end(), context->records.begin(), context->records.end());
  return bytes;
}

Status XenWorker::put(unsigned vcpu, XenMoves::Bytes state) {
  Departure departure;
  if (state.size() <= sizeof departure) return Error{EPROTO, "a vCPU came without its state"};
  std::memcpy(&departure, state.data(), sizeof departure);
  VcpuContext context;
  context.vcpu = vcpu;
  context.taken_ns = departure.taken_ns;
  context.records.assign(state.begin() + sizeof departure, state.end());
  const auto records = hypervisor::xen::HvmRecords::parse(context.records);
  if (!records) return records.error();
  const auto registers = records->registers(vcpu);
  if (!registers) return registers.error();
  context.registers = *registers;
  // Clocks of different machines have nothing in common: there its way counts as no time.
  const std::uint64_t now = hypervisor::xen::monotonic_ns();
  const bool same = departure.boot == this_boot() && now > departure.taken_ns;
  if (!same) context.taken_ns = now;
  return slice_->put_vcpu(context);
}

// In a thread of its own, because it waits for the other slices.
void XenWorker::migrate(unsigned vcpu, dsm::HostId to, const json& id) {
  std::thread([this, vcpu, to, id] {
    json event{{"event", "migrated"}, {"id", id}, {"threads", 1}};
    const auto known = lines_->peers();
    const auto before = std::chrono::steady_clock::now();
    Status moved;
    if (vcpu == 0 || vcpu >= order_.vcpus.size())
      moved = Error{EBUSY, "vCPU 0 of a domain under Xen stays on the home"};
    else if (to != order_.self && std::find(known.begin(), known.end(), to) == known.end())
      moved = Error{EBUSY, "there is no slice on that host"};
    else
      moved = moves_->move(vcpu, to, known);
    if (!moved && moved.error().code != EBUSY) stop_domain(moved.error().message);
    if (!moved) event["error"] = moved.error().message;
    event["us"] = std::chrono::duration_cast<std::chrono::microseconds>(
                      std::chrono::steady_clock::now() - before)
                      .count();
    control_.send(event);
  }).detach();
}

// ---- hosts come and go

Status XenWorker::add_peer(dsm::HostId host, const dsm::tcp::Peer& peer) {
  if (host >= dsm::kMaxHosts || host == order_.self)
    return Error{EINVAL, fmt::format("host number {} cannot join", host)};
  if (order_.hosts.size() <= host) order_.hosts.resize(host + 1U);
  order_.hosts[host] = peer.name;
  if (Status added = dsm::tcp::add_peer(*transport_, *acceptor_, host, peer, kConnectMs); !added)
    return added;
  return lines_->add_peer(host, peer.address, peer.port);
}

// Until this its loss concerns nobody.
Status XenWorker::admit_peer(dsm::HostId host) {
  if (host >= order_.hosts.size() || order_.hosts[host].empty())
    return Error{EINVAL, fmt::format("host number {} has not connected", host)};
  if (Status added = engine_->add_peer(host, order_.hosts[host]); !added) return added;
  if (!order_.home()) return {};
  if (const int error = tell_to_run(host); error != 0)
    return system_error(error, "the slice there cannot be reached");
  return {};
}

Status XenWorker::remove_peer(dsm::HostId host) {
  if (host >= order_.hosts.size() || host == order_.self)
    return Error{EINVAL, fmt::format("host number {} cannot leave", host)};
  lines_->remove_peer(host);
  if ((engine_->members() & dsm::mask_of(host)) != 0) return engine_->remove_peer(host);
  transport_->remove_peer(host);
  return {};
}

void XenWorker::learn_slots(const dsm::SlotTable& table) {
  engine_->learn_slots(table);
  start_serving();
}

// Its vCPUs have gone; nothing that is for one of them is on its way there afterwards.
Result<unsigned> XenWorker::vacate(dsm::HostId host) {
  if (!order_.home()) return Error{EPROTO, "`vacate` is for the home"};
  std::vector<dsm::HostId> all = lines_->peers();
  all.push_back(order_.self);
  if (Status flushed = moves_->flush(host, all); !flushed) return flushed.error();
  return moves_->routes().count_on(host);
}

void XenWorker::halt() noexcept {
  if (!touched_ || halted_.exchange(true)) return;
  if (Status paused = xen_->pause(order_.domain); !paused)
    log::warning("{}", paused.error().message);
}

// The engine has stopped. A guest that is gone is no failure: it has ended.
void XenWorker::on_stop(const std::string& cause) {
  const auto facts = xen_->domain(order_.domain);
  const bool gone = !facts || facts->dying || facts->shut_down;
  if (!order_.home() || !gone) return fail(cause);
  if (!over_.exchange(true))
    control_.send({{"event", "exited"}, {"status", 0}, {"signal", 0}, {"message", ""}});
}

// What only this slice knows. The home hears of it first, for it tells the cause.
void XenWorker::stop_domain(const std::string& cause) {
  halt();
  if (!order_.home() && lines_->send(0, Kind::kStops, 0, 0,
                                     std::as_bytes(std::span(cause.data(), cause.size()))) == 0) {
    std::unique_lock guard(lock_);
    heard_.wait_for(guard, kHeardLimit, [this] { return home_has_heard_; });
  }
  engine_->stop(cause);
}

void XenWorker::fail(const std::string& cause) {
  halt();
  if (over_.exchange(true)) return;
  log::error("{}", cause);
  control_.send({{"event", "failed"},
                 {"status", kOwnFailure},
                 {"error", cause},
                 {"paused", touched_.load()}});
}

void XenWorker::serve() {
  pollfd waiting{control_.fd(), POLLIN, 0};
  for (;;) {
    const int ready = ::poll(&waiting, 1, kCounterPeriodMs);
    if (ready == 0 && !over_ && engine_ != nullptr) {
      json event = engine_counters(engine_->stats(0));
      const auto facts = xen_->domain(order_.domain);
      event["threads"] = moves_->routes().count_on(order_.self);
      event["pages"] = facts ? facts->pages : 0;
      control_.send(event);
    }
    if (ready <= 0) continue;
    const auto packet = control_.receive();
    if (packet && obey(packet->body)) continue;
    halt();
    return;
  }
}

bool XenWorker::obey(const json& body) {
  const std::string op = body.value("op", "");
  if (op == "stop") {
    log::info("the slice ends: {}", body.value("cause", ""));
    return false;
  }
  if (op == "start" && order_.home()) {
    if (const Status status = run_home(); !status) fail(status.error().message);
  } else if (op == "stats") {
    control_.send(stats(body.value("id", json())));
  } else if (op == "migrate") {
    migrate(body.value("vcpu", ~0U), body.value("host", dsm::HostId{dsm::kMaxHosts}),
            body.value("id", json()));
  } else {
    take_step(control_, op, body);
  }
  return true;
}

json XenWorker::stats(const json& id) {
  json event =
      engine_ == nullptr ? json{{"event", "stats"}} : engine_stats(engine_->stats(order_.hottest));
  event["id"] = id;
  event["host"] = order_.hosts[order_.self];
  event["transport"] = order_.wire.transport;
  return event;
}

}  // namespace

int work_for_xen(ControlChannel& control, const json& create) {
  const auto refuse = [&](const Error& error) {
    control.send({{"event", "failed"}, {"status", kOwnFailure}, {"error", error.message}});
    while (control.receive().ok()) {  // until the daemon closes or kills
    }
    return 1;
  };
  auto order = parse_xen_order(create);
  if (!order) return refuse(order.error());
  log::open("xenspan-slice", order->name + "@" + order->hosts[order->self]);
  auto xen = XenCalls::open();
  if (!xen) return refuse(xen.error());
  const auto host = (*xen)->host();
  if (!host) return refuse(host.error());
  if (Status can = hypervisor::xen::may_hold_slice(*host); !can) return refuse(can.error());
  const auto domain = (*xen)->domain(order->domain);
  if (!domain) return refuse(domain.error());
  if (Status can = hypervisor::xen::may_be_slice(*domain); !can) return refuse(can.error());
  if (domain->vcpus != order->vcpus.size())
    return refuse({EINVAL, fmt::format("domain {} has {} vCPUs and not {}: give every slice the "
                                       "same xl file",
                                       order->domain, domain->vcpus, order->vcpus.size())});
  // Not killed with the daemon: it pauses the guest first, when the control channel ends (serve).
  ::prctl(PR_SET_PDEATHSIG, 0);
  // Threads and frames live as long as the process.
  auto& worker = *new XenWorker(control, std::move(*xen), std::move(*order));
  if (Status joined = worker.join(); !joined) worker.fail(joined.error().message);
  worker.serve();
  return 0;
}

}  // namespace xenspan::slice
