#include "dom0-daemon/daemon/daemon.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/utsname.h>

#include <cerrno>
#include <csignal>
#include <filesystem>

#include "base/log.h"
#include "config.h"

namespace xenspan::daemon {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTick{1000};
constexpr unsigned kTicksBetweenLooks = 5;  // for RDMA devices
constexpr milliseconds kEndTick{20};
// Slices get 2 s before they are killed; then messages to peers get what is left.
constexpr int kEndTicks = 3000 / 20;

std::string kernel_release() {
  utsname names{};
  uname(&names);
  return names.release;
}

// Others count on this daemon's beats; it has little to do between them. Not for what it starts.
void ask_for_time() {
  sched_param parameters{};
  parameters.sched_priority = 1;
  if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &parameters) != 0)
    log::debug("no right to real-time priority: a busy machine may take this host for lost");
}

// No key and no peers: a machine on its own. Anything else needs the key.
Result<std::unique_ptr<TlsContext>> make_tls(const Config& config) {
  std::error_code ignored;
  if (config.peers.empty() && !std::filesystem::exists(config.key, ignored)) {
    log::info("there is no cluster key {}: this host works alone", config.key);
    return std::unique_ptr<TlsContext>();
  }
  const auto key = read_cluster_key(config.key);
  if (!key) return key.error();
  return TlsContext::make(*key);
}

}  // namespace

Result<std::unique_ptr<Daemon>> Daemon::start(const Config& config) {
  auto program = find_slice_program(config.slice);
  if (!program) return program.error();
  auto tls = make_tls(config);
  if (!tls) return tls.error();
  auto directory = RunDirectory::open(config);
  if (!directory) return directory.error();
  std::unique_ptr<Daemon> daemon(
      new Daemon(config, std::move(*tls), std::move(*program), std::move(*directory)));
  if (Status opened = daemon->open(); !opened) return opened.error();
  return daemon;
}

Daemon::Daemon(const Config& config, std::unique_ptr<TlsContext> tls, std::string slice_program,
               std::unique_ptr<RunDirectory> directory)
    : config_(config),
      directory_(std::move(directory)),
      cluster_(loop_, std::move(tls), config_, *this),
      slices_(loop_, config_, std::move(slice_program)),
      leases_(loop_, config_, cluster_, slices_),
      router_(config_, cluster_, slices_,
              [this](const std::string& uuid) { return domains_.own(uuid); }),
      peer_slices_(config_, cluster_, slices_),
      domains_(loop_, config_, cluster_, router_, leases_),
      commands_(config_, cluster_, domains_, [this] { return own_record(); }),
      balancer_(domains_, [this](const std::string& host) { return record_of(host); }),
      load_(config_.cpus) {
  router_.set_peers(&peer_slices_);
  peer_slices_.set_at_home([this](const std::string& op, const Json& message) {
    router_.handle(config_.name, op, message);
  });
  domains_.set_callbacks(
      [this](const DomainRecord& record) {
        commands_.domain_changed(record);
        if (xen_domains_) xen_domains_->domain_changed(record);
      },
      [this](const Domain& domain) {
        commands_.domain_over(domain);
        if (xen_domains_) xen_domains_->domain_over(domain);
      });
  leases_.set_callbacks(
      [this](const Agreed& agreed) { domains_.agreed(agreed); },
      [this](const std::string& uuid, const std::string& cause) { fenced(uuid, cause); });
}

Daemon::~Daemon() = default;

Status Daemon::open() {
  if (config_.frame_blocks) frame_blocks_.allow();
  look_for_rdma();
  auto story = XenstoreStory::open(loop_, config_, *this);
  if (!story) return story.error();
  story_ = std::move(*story);
  domains_.set_story(story_.get());
  if (Status opened = open_xen(); !opened) return opened;
  story_->put_host(own_record(), xenstore::HostState::kUp);

  cluster_.set_record(own_record());
  if (Status started = cluster_.start(); !started) return started;

  auto control = ControlSocket::open(loop_, config_.socket, commands_);
  if (!control) return control.error();
  control_ = std::move(*control);
  commands_.set_socket(control_.get());

  tick_ = std::make_unique<Timer>(
      loop_, kTick, [this] { tick(); }, /*repeat=*/true);
  for (const int number : {SIGTERM, SIGINT})
    signals_.push_back(std::make_unique<SignalWatch>(loop_, number, [this] { begin_end(); }));
  return {};
}

Status Daemon::open_xen() {
  xen_ = XenHost::open();
  if (!xen_) return {};
  xen_slices_ = std::make_unique<XenPeerSlices>(loop_, config_, cluster_, *xen_);
  xen_domains_ = std::make_unique<XenDomains>(config_, cluster_, domains_, *xen_,
                                              [this] { return own_record(); });
  domains_.set_xen(xen_domains_.get());
  peer_slices_.set_xen([this](const std::string& uuid, const std::string& home) {
    return xen_slices_->domain_of(uuid, home);
  });
  xen_slices_->remove_leftovers();
  xen_domains_->set_store(story_->store());
  const auto look = [this](const std::string&, const std::string&) {
    xen_slices_->look();
    xen_domains_->look();
  };
  for (const char* event : {"@introduceDomain", "@releaseDomain"})
    if (Status watched = story_->store()->watch(event, "xenspand", look); !watched) return watched;
  return {};
}

void Daemon::run() {
  log::info("xenspand {} serves host {} at {}, {} cores, control socket {}", PACKAGE_VERSION,
            config_.name, address_text(config_.address, config_.port), config_.cpus.size(),
            config_.socket);
  ask_for_time();
  loop_.run();
  log::info("host {} has ended", config_.name);
}

HostRecord Daemon::own_record() const {
  HostRecord record;
  record.name = config_.name;
  record.address = config_.address;
  record.port = config_.port;
  record.kernel = kernel_release();
  record.version = PACKAGE_VERSION;
  record.cores = config_.cpus;
  record.core_use = slices_.core_use();
  record.others = load_.others();
  record.memory = config_.memory;
  record.memory_used = slices_.memory_used();
  record.cpu = cpu_;
  record.rdma = rdma_;
  if (xen_) record.xen = xen_->facts();
  record.encrypt = config_.encrypt;
  return record;
}

std::optional<HostRecord> Daemon::record_of(const std::string& host) const {
  if (host == config_.name) return own_record();
  const auto peer = cluster_.peers().find(host);
  if (peer == cluster_.peers().end() || peer->second.state != HostState::kActive) return {};
  return peer->second.record;
}

// Devices come and go with drivers and cables, but seldom.
void Daemon::look_for_rdma() {
  const RdmaPort found = find_rdma_port(config_.rdma, config_.address);
  if (found == rdma_) return;
  rdma_ = found;
  if (found.usable())
    log::info("RDMA device {} ({})", found.device, found.link);
  else
    log::debug("no RDMA: {}", found.problem);
}

void Daemon::tick() {
  if (ticks_++ % kTicksBetweenLooks == 0) look_for_rdma();
  load_.look(slices_.pids_for_load());
  const HostRecord record = own_record();
  cluster_.set_record(record);
  story_->beat(record);
  domains_.tick();
  if (xen_domains_) xen_domains_->tick();
  balancer_.tick();
}

void Daemon::begin_end() {
  if (ending_) return loop_.stop();
  ending_ = true;
  log::info("host {} ends: stopping its domains", config_.name);
  const std::string cause = fmt::format("host {}'s xenspand was stopped", config_.name);
  commands_.end();
  domains_.end_all(cause);
  peer_slices_.stop_all(cause);
  if (xen_slices_) xen_slices_->end_all();
  tick_ = std::make_unique<Timer>(
      loop_, kEndTick, [this] { finish_end(); }, /*repeat=*/true);
}

void Daemon::finish_end() {
  const bool late = ++ending_ticks_ > kEndTicks;
  const bool xen_over = !xen_slices_ || xen_slices_->all_over();
  if (!late && !(slices_.empty() && domains_.all_over() && xen_over)) return;
  cluster_.leave();
  if (!late && cluster_.sending()) return;
  control_->flush();
  story_->leave();
  loop_.stop();
}

void Daemon::host_joined(const HostRecord& record) {
  story_->put_host(record, xenstore::HostState::kUp);
  domains_.host_joined(record.name);
}

void Daemon::host_changed(const HostRecord& record) { story_->beat(record); }

void Daemon::host_lost(const std::string& name, const std::string& cause) {
  story_->host_down(name, cause);
  leases_.home_lost(name);
  peer_slices_.home_lost(name, cause);
  if (xen_slices_) xen_slices_->home_lost(name);
  if (xen_domains_) xen_domains_->host_lost(name, cause);
  domains_.host_lost(name, cause);
}

void Daemon::host_message(const std::string& name, Json message) {
  const std::string op = text_or(message, "op", "");
  if (leases_.handle(name, op, message) || router_.handle(name, op, message) ||
      peer_slices_.handle(name, op, message) || domains_.handle(name, op, message) ||
      commands_.handle(name, op, message) ||
      (xen_slices_ && xen_slices_->handle(name, op, message)) ||
      (xen_domains_ && xen_domains_->handle(name, op, message)))
    return;
  log::warning("host {} sent an unknown message \"{}\"", name, xenstore::encode_text(op));
}

void Daemon::fenced(const std::string& uuid, const std::string& cause) {
  slices_.stop(uuid, cause);
  domains_.fenced(uuid, cause);
}

Status Daemon::destroy_requested(const std::string& uuid) {
  return commands_.destroy_requested(uuid);
}

Status Daemon::member_requested(const std::string& uuid, const std::string& host,
                                const std::string& word) {
  return domains_.member_requested(uuid, host, word);
}

void Daemon::member_withdrawn(const std::string& uuid, const std::string& host) {
  domains_.member_withdrawn(uuid, host);
}

void Daemon::store_restarted() {
  story_->put_host(own_record(), xenstore::HostState::kUp);
  for (const auto& [name, peer] : cluster_.peers())
    if (peer.record)
      story_->put_host(
          *peer.record,
          peer.state == HostState::kActive ? xenstore::HostState::kUp : xenstore::HostState::kDown,
          peer.error);
  domains_.tell_all();
}

}  // namespace xenspan::daemon
