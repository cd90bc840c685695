#include "dom0-daemon/daemon/xenstore_story.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "base/log.h"

namespace xenspan::daemon {
namespace {

using xenstore::DomainRequest;
using xenstore::DomainState;
using xenstore::HostState;
using xenstore::Nodes;
namespace paths = xenstore::paths;
namespace node = xenstore::node;

constexpr const char* kToken = "xenspand";
constexpr std::uint64_t kKib = 1024;

// Beside what Dom0 has of its own, for Xen's store belongs to one machine.
std::string mark_of(const std::string& host) { return "/local/domain/0/xenspan/" + host; }

std::uint64_t now() { return static_cast<std::uint64_t>(std::time(nullptr)); }

std::vector<std::string> feature_words(const CpuFeatures& features) {
  std::vector<std::string> words;
  std::string names = missing_features(features, CpuFeatures{});
  for (std::size_t begin = 0; begin < names.size();) {
    const std::size_t end = std::min(names.find(' ', begin), names.size());
    words.push_back(names.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

// Runs steps until one fails.
Status first_failure(std::initializer_list<std::function<Status()>> steps) {
  for (const auto& step : steps)
    if (Status status = step(); !status) return status;
  return {};
}

}  // namespace

Result<std::unique_ptr<XenstoreStory>> XenstoreStory::open(EventLoop& loop, const Config& config,
                                                           Handler& handler) {
  std::unique_ptr<XenstoreStory> story(new XenstoreStory(loop, config, handler));
  if (Status connected = story->connect(); !connected) return connected.error();
  return story;
}

XenstoreStory::~XenstoreStory() {
  exit_.reset();
  watches_.reset();
  store_.reset();
}

Status XenstoreStory::connect() {
  xenstore::XenstoredOptions options;
  options.run_dir = config_.own_dir() + "/xenstored";
  auto process = xenstore::XenstoredProcess::start(options);
  if (!process) return process.error();
  process_ = std::move(*process);
  auto store = xenstore::XenstoreStore::open(process_->socket_path());
  if (!store) return store.error();
  store_ = std::move(*store);
  if (Status removed = remove_leftovers(); !removed) return removed;
  if (process_->exit_fd() < 0)
    if (Status marked = store_->write(mark_of(config_.name), "1"); !marked) return marked;
  const auto on_change = [this](const std::string& path, const std::string&) { changed(path); };
  const Status watched = first_failure({
      [&] { return store_->mkdir(paths::kHosts); },
      [&] { return store_->mkdir(paths::kDomains); },
      [&] { return store_->watch(paths::kHosts, kToken, on_change); },
      [&] { return store_->watch(paths::kDomains, kToken, on_change); },
  });
  if (!watched) return watched;
  auto watches = xenstore::WatchLoop::start(loop_.base(), *store_,
                                            [this](const Error& error) { check(error); });
  if (!watches) return watches.error();
  watches_ = std::move(*watches);
  broken_ = false;
  if (process_->exit_fd() >= 0)
    exit_ = std::make_unique<FdWatch>(loop_, process_->exit_fd(), EV_READ,
                                      [this](short) { restart(); });
  return {};
}

// A store that outlives the daemon (Xen's own) may tell of domains that a killed daemon had.
Status XenstoreStory::remove_leftovers() {
  const auto uuids = xenstore::list_domains(*store_);
  if (!uuids) return uuids.error();
  for (const std::string& uuid : *uuids) {
    const auto home = store_->find(paths::domain(uuid) + "/" + node::kHome);
    if (home && *home && **home == config_.name)
      if (Status removed = xenstore::remove_domain(*store_, uuid); !removed) return removed;
  }
  const auto hosts = xenstore::list_hosts(*store_);
  if (!hosts) return hosts.error();
  for (const std::string& host : *hosts) {
    const Status done = host == config_.name
                            ? xenstore::remove_host(*store_, host)
                            : xenstore::set_host_state(*store_, host, HostState::kDown,
                                                       "not seen since this xenspand started");
    if (!done) return done;
  }
  return {};
}

void XenstoreStory::restart() {
  threads_told_.clear();
  counters_told_.clear();
  refused_.clear();
  log::error("xenstored ended unexpectedly and is started anew");
  exit_.reset();
  watches_.reset();
  store_.reset();
  process_.reset();
  if (Status connected = connect(); !connected) {
    log::error("{}", connected.error().message);
    return;
  }
  handler_.store_restarted();
}

// Once a store is lost every write fails: one line is enough.
void XenstoreStory::check(const Status& status) {
  if (status || broken_) return;
  broken_ = status.error().code == EBADF || status.error().code == EPIPE;
  log::error("xenstore: {}", status.error().message);
}

void XenstoreStory::put_host(const HostRecord& host, HostState state, const std::string& error) {
  if (!store_) return;
  xenstore::HostRecord record;
  record.name = host.name;
  record.state = state;
  record.address = host.address;
  record.port = host.port;
  record.cores = static_cast<std::uint32_t>(host.cores.size());
  for (const int core : host.cores) record.cpus.push_back(static_cast<std::uint32_t>(core));
  record.memory_total_kib = host.memory / kKib;
  record.memory_free_kib = host.memory_free() / kKib;
  record.kernel = xenstore::encode_text(host.kernel);
  if (!host.xen.version.empty()) record.backend = xenstore::Backend::kXen;
  record.version = host.version;
  record.rdma = host.rdma.device;
  record.cpu_features = feature_words(host.cpu);
  record.heartbeat = now();
  record.error = error;
  check(xenstore::write_host(*store_, record));
  rdma_told_[host.name] = record.rdma;
}

void XenstoreStory::beat(const HostRecord& host) {
  if (!store_) return;
  // A driver may be loaded or a port come up while the daemons run.
  if (const auto told = rdma_told_.find(host.name);
      told != rdma_told_.end() && told->second != host.rdma.device)
    return put_host(host, HostState::kUp);
  check(xenstore::set_host_heartbeat(*store_, host.name, now(), host.memory_free() / kKib));
}

void XenstoreStory::host_down(const std::string& name, const std::string& error) {
  if (store_) check(xenstore::set_host_state(*store_, name, HostState::kDown, error));
}

bool XenstoreStory::is_told_by(const std::string& home) {
  if (home == config_.name) return false;
  const auto mark = store_->find(mark_of(home));
  return mark && *mark;
}

bool XenstoreStory::is_of_another(const std::string& uuid) {
  const auto home = store_->find(paths::domain(uuid) + "/" + node::kHome);
  return home && *home && is_told_by(**home);
}

void XenstoreStory::put_domain(const DomainRecord& domain) {
  if (!store_ || is_told_by(domain.home)) return;
  xenstore::DomainRecord record;
  record.uuid = domain.uuid;
  record.name = domain.name;
  record.state = domain.state;
  record.home = domain.home;
  record.kind = domain.kind;
  record.transport = domain.transport;
  record.policy = domain.policy;
  record.last_move = domain.last_move;
  record.memory_kib = domain.memory / kKib;
  record.vcpus = static_cast<std::uint32_t>(domain.vcpus.size());
  record.user = domain.user;
  record.command = domain.command;
  record.exit_status = domain.exit_status;
  record.error = domain.error;
  record.created = domain.created;
  check(store_->atomically([&](Nodes& nodes) -> Status {
    if (Status done = xenstore::write_domain(nodes, record); !done) return done;
    if (Status done = remove_forgotten(nodes, domain); !done) return done;
    for (const DomainMember& each : domain.members) {
      if (each.forgotten) continue;
      xenstore::MemberRecord member;
      member.host = each.host;
      member.state = each.state;
      member.vcpus = static_cast<std::uint32_t>(each.vcpus);
      member.error = member_error(domain, each);
      if (Status done = xenstore::write_member(nodes, domain.uuid, member); !done) return done;
    }
    return {};
  }));
  threads_told_.erase(domain.uuid);
  counters_told_.erase(domain.uuid);
  put_counters(domain);
}

std::string XenstoreStory::member_error(const DomainRecord& domain, const DomainMember& member) {
  const auto refused = refused_.find(paths::member(domain.uuid, member.host));
  if (refused == refused_.end()) return member.error;
  if (refused->second.state == member.state) return refused->second.why;
  refused_.erase(refused);
  return member.error;
}

// Only what has changed: this is done once a second, and each node that is written takes the core
// twice from a vCPU that may run here.
void XenstoreStory::put_counters(const DomainRecord& domain) {
  if (!store_ || is_told_by(domain.home)) return;
  auto& told = counters_told_[domain.uuid];
  const Status written = store_->atomically([&](Nodes& nodes) -> Status {
    for (const DomainMember& member : domain.members) {
      if (member.forgotten) continue;
      const auto before = told.find(member.host);
      if (Status done = xenstore::write_counters(nodes, domain.uuid, member.host, member.counters,
                                                 before != told.end() ? &before->second : nullptr);
          !done)
        return done;
    }
    return put_vcpus(nodes, domain);
  });
  check(written);
  told.clear();
  if (!written) return;
  for (const DomainMember& member : domain.members)
    if (!member.forgotten) told[member.host] = member.counters;
  threads_told_[domain.uuid] = domain.threads();
}

// Those whose number of threads has changed: there may be a thousand of them, and this is done once
// a second.
Status XenstoreStory::put_vcpus(Nodes& nodes, const DomainRecord& domain) {
  const auto told = threads_told_.find(domain.uuid);
  for (std::size_t i = 0; i < domain.vcpus.size(); ++i) {
    const DomainVcpu& each = domain.vcpus[i];
    const bool known = told != threads_told_.end() && i < told->second.size();
    if (known && told->second[i] == each.threads) continue;
    const xenstore::VcpuRecord vcpu{static_cast<std::uint32_t>(i), each.host,
                                    static_cast<std::uint32_t>(each.core), each.threads};
    if (Status done = xenstore::write_vcpu(nodes, domain.uuid, vcpu); !done) return done;
  }
  return {};
}

void XenstoreStory::remove_domain(const std::string& uuid) {
  threads_told_.erase(uuid);
  counters_told_.erase(uuid);
  std::erase_if(refused_, [below = paths::domain(uuid) + "/"](const auto& each) {
    return each.first.starts_with(below);
  });
  if (store_ && !is_of_another(uuid)) check(xenstore::remove_domain(*store_, uuid));
}

void XenstoreStory::leave() {
  if (!store_) return;
  check(remove_leftovers());
  check(store_->remove(mark_of(config_.name)));
}

void XenstoreStory::changed(const std::string& path) {
  const auto about = xenstore::parse_path(path);
  using Kind = xenstore::ParsedPath::Kind;
  if (!about || about->node != node::kRequest) return;
  const auto request = store_->find(path);
  if (!request) return;
  if (about->kind == Kind::kMember)
    return member_request(about->uuid, about->host, request->value_or(""));
  if (!*request || (*request)->empty()) return;
  if (about->kind == Kind::kDomain) return domain_request(about->uuid);
  // Another host's nodes here are a mirror: only a host's own daemon answers its requests.
  if (about->kind == Kind::kHost && about->host == config_.name)
    not_supported(paths::host(about->host), **request);
}

namespace {
// kNone: a word that is none.
xenstore::MemberRequest member_request_from(const std::string& word) {
  return xenstore::from_word<xenstore::MemberRequest>(word).value_or(
      xenstore::MemberRequest::kNone);
}
}  // namespace

void XenstoreStory::member_request(const std::string& uuid, const std::string& host,
                                   const std::string& word) {
  if (is_of_another(uuid)) return;
  if (word.empty()) return handler_.member_withdrawn(uuid, host);
  const Status asked = handler_.member_requested(uuid, host, word);
  if (asked) return;
  answer_member(uuid, host, member_request_from(word), asked, std::nullopt);
  const auto told = store_->find(paths::member(uuid, host) + "/" + node::kState);
  if (!told || !*told) return;
  if (const auto state = xenstore::from_word<xenstore::MemberState>(**told))
    refused_[paths::member(uuid, host)] = {*state, asked.error().message};
}

Status XenstoreStory::request_member(const std::string& uuid, const std::string& host,
                                     xenstore::MemberRequest request) {
  if (!store_) return Error{EPIPE, "xenstore is not there: see xenspand's log"};
  // Also of a host that is not a member: the refusal says so.
  return store_->write(paths::member(uuid, host) + "/" + node::kRequest,
                       xenstore::to_word(request));
}

void XenstoreStory::answer_member(const std::string& uuid, const std::string& host,
                                  xenstore::MemberRequest request, const Status& answer,
                                  std::optional<xenstore::MemberState> state) {
  if (!store_) return;
  const std::string base = paths::member(uuid, host);
  check(store_->atomically([&](Nodes& nodes) -> Status {
    const auto there = nodes.find(base + "/" + node::kRequest);
    if (!there) return there.error();
    const bool another = *there && member_request_from(**there) != request;
    if (!another)
      if (Status cleared = xenstore::clear_request(nodes, base); !cleared) return cleared;
    const std::string error = answer ? "" : answer.error().message;
    if (answer && !state && !another) return nodes.remove(base);
    if (state)
      if (Status told = nodes.write(base + "/" + node::kState, xenstore::to_word(*state)); !told)
        return told;
    return nodes.write(base + "/" + node::kError, xenstore::encode_text(error));
  }));
}

// Members that were removed. What has no state is a host that was refused: it keeps its error.
Status XenstoreStory::remove_forgotten(Nodes& nodes, const DomainRecord& domain) {
  const auto there = xenstore::list_members(nodes, domain.uuid);
  if (!there) return there.error();
  for (const std::string& host : *there) {
    const bool known =
        std::any_of(domain.members.begin(), domain.members.end(),
                    [&](const DomainMember& each) { return each.host == host && !each.forgotten; });
    if (known) continue;
    const auto state = nodes.find(paths::member(domain.uuid, host) + "/" + node::kState);
    if (!state) return state.error();
    if (!*state) continue;
    if (Status gone = xenstore::remove_member(nodes, domain.uuid, host); !gone) return gone;
  }
  return {};
}

void XenstoreStory::domain_request(const std::string& uuid) {
  const std::string base = paths::domain(uuid);
  const auto word = store_->find(base + "/" + node::kRequest);
  const auto request = word && *word ? xenstore::from_word<DomainRequest>(**word) : std::nullopt;
  const Status answer =
      request == DomainRequest::kDestroy
          ? handler_.destroy_requested(uuid)
          : Status(Error{EINVAL, fmt::format("a domain's request is {}",
                                             xenstore::words_of<DomainRequest>())});
  check(store_->atomically([&](Nodes& nodes) -> Status {
    if (Status cleared = xenstore::clear_request(nodes, base); !cleared) return cleared;
    return answer ? Status() : nodes.write(base + "/" + node::kError, answer.error().message);
  }));
}

void XenstoreStory::not_supported(const std::string& path, const std::string& request) {
  check(store_->atomically([&](Nodes& nodes) -> Status {
    if (Status cleared = xenstore::clear_request(nodes, path); !cleared) return cleared;
    return nodes.write(path + "/" + node::kError,
                       fmt::format("\"{}\" is refused: a host's requests are not carried "
                                   "out yet; drain it from each domain: see xenspan-xenstore(5)",
                                   xenstore::encode_text(request)));
  }));
}

}  // namespace xenspan::daemon
