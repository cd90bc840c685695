#include "dom0-daemon/daemon/domain.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>

#include "base/log.h"
#include "dom0-daemon/daemon/names.h"
#include "dom0-daemon/daemon/stats_report.h"

namespace xenspan::daemon {
namespace {

using std::chrono::milliseconds;
using xenstore::DomainState;
using xenstore::MemberState;

constexpr milliseconds kStatsLimit{5000};
constexpr int kOwnFailure = 125;
constexpr int kSecretBytes = 32;

std::uint64_t now() { return static_cast<std::uint64_t>(std::time(nullptr)); }

std::vector<std::string> host_names(const Placement& placement) {
  std::vector<std::string> names;
  for (const HostRecord& host : placement.hosts) names.push_back(host.name);
  return names;
}

std::string command_line(const DomainSpec& spec) {
  std::string text;
  for (const std::string& word : spec.argv) text += (text.empty() ? "" : " ") + word;
  return xenstore::encode_text(text.substr(0, xenstore::kMaxText));
}

}  // namespace

Domain::Domain(EventLoop& loop, SliceLinks& links, Handler& handler, DomainSpec spec)
    : Domain(loop, links, handler, std::move(spec), 0) {
  first_hosts_ = spec_.placement.hosts.size();
}

Domain::Domain(EventLoop& loop, SliceLinks& links, Handler& handler, DomainSpec spec,
               std::size_t first_hosts)
    : loop_(loop),
      links_(links),
      handler_(handler),
      spec_(std::move(spec)),
      secret_(random_hex(kSecretBytes)),
      members_(spec_.placement.hosts.size()),
      first_hosts_(first_hosts),
      membership_(spec_.name, spec_.placement.hosts.front().name, host_names(spec_.placement)) {
  const Placement& placement = spec_.placement;
  record_.uuid = spec_.uuid;
  record_.name = spec_.name;
  record_.home = placement.hosts.front().name;
  record_.kind = spec_.kind;
  record_.error = spec_.note;
  record_.uid = spec_.user.uid;
  record_.user = spec_.user.name;
  record_.transport = spec_.transport;
  record_.policy = spec_.policy;
  record_.memory = placement.memory;
  record_.command = command_line(spec_);
  record_.created = now();
  for (std::size_t i = 0; i < placement.hosts.size(); ++i) {
    DomainMember member;
    member.host = placement.hosts[i].name;
    member.vcpus = placement.vcpus_on(static_cast<int>(i));
    record_.members.push_back(member);
  }
  for (const Placement::Vcpu& vcpu : placement.vcpus)
    record_.vcpus.push_back(
        {placement.hosts[static_cast<std::size_t>(vcpu.host)].name, std::max(vcpu.core, 0)});
}

Domain::~Domain() = default;

int Domain::index_of(const std::string& host) const {
  for (std::size_t i = 0; i < record_.members.size(); ++i)
    if (record_.members[i].host == host) return static_cast<int>(i);
  return -1;
}

void Domain::changed() { handler_.domain_changed(*this); }

Json Domain::create_message(int index) const {
  const Placement& placement = spec_.placement;
  Json hosts = Json::array();
  bool encrypt = false;
  for (const HostRecord& host : placement.hosts) {
    hosts.push_back({{"name", host.name}, {"address", host.address}});
    encrypt = encrypt || host.encrypt;
  }
  Json vcpus = Json::array();
  for (const Placement::Vcpu& vcpu : placement.vcpus)
    vcpus.push_back({{"host", vcpu.host}, {"core", vcpu.core}});
  Json create{{"uuid", spec_.uuid},
              {"name", spec_.name},
              {"self", index},
              {"hosts", hosts},
              {"vcpus", vcpus},
              {"memory", placement.memory},
              {"secret", secret_},
              {"encrypt", encrypt},
              {"prefetch", spec_.prefetch},
              {"without", spec_.without},
              {"transport", xenstore::to_word(spec_.transport)},
              {"policy", xenstore::to_word(spec_.policy)},
              {"bind", placement.hosts[static_cast<std::size_t>(index)].address},
              {"user", to_json(spec_.user)},
              {"stats_hottest", kHottestPages}};
  if (spec_.kind == xenstore::Backend::kXen) {
    create["backend"] = xenstore::to_word(spec_.kind);
    create["xen"] = spec_.xen;
    return create;
  }
  if (index != home_index_) return create;
  create["program"] = spec_.program;
  create["argv"] = spec_.argv;
  create["env"] = spec_.env;
  create["cwd"] = spec_.cwd;
  create["umask"] = spec_.umask;
  create["fds"] = spec_.fd_numbers;
  return create;
}

void Domain::start() {
  log::info("domain {} ({}): {} starts {} on {} hosts, {} vCPUs, transport {}", record_.name,
            record_.uuid, record_.user, record_.command, members_.size(), record_.vcpus.size(),
            xenstore::to_word(record_.transport));
  changed();
  limit_ = std::make_unique<Timer>(loop_, spec_.start_within, [this] {
    for (std::size_t i = 0; i < members_.size(); ++i)
      if (!members_[i].ready)
        return fail(kOwnFailure,
                    fmt::format("host {} did not get ready within {} s: see its "
                                "xenspand's log, or raise start-within in "
                                "xenspand.conf here",
                                record_.members[i].host, spec_.start_within.count() / 1000));
  });
  for (std::size_t i = 0; i < members_.size() && !stopping(); ++i) {
    const std::string& host = record_.members[i].host;
    std::vector<UniqueFd> fds;
    if (i == 0) fds = std::move(spec_.fds);
    const Status created = links_.create_slice(
        host, record_.uuid, spec_.user, create_message(static_cast<int>(i)), std::move(fds),
        spec_.placement.memory_promised ? spec_.placement.memory : 0);
    if (created) continue;
    // Hosts that were not asked have nothing to collect.
    for (std::size_t k = i; k < members_.size(); ++k) members_[k].gone = true;
    fail(kOwnFailure, created.error().message);
    return member_gone(static_cast<int>(i));
  }
}

void Domain::slice_event(const std::string& host, const Json& event) {
  const int index = index_of(host);
  if (index < 0 || phase_ >= Phase::kOver || members_[static_cast<std::size_t>(index)].lost) return;
  const std::string kind = text_or(event, "event", "");
  if (member_event(index, kind, event)) return;
  if (kind == "counters") {
    record_.members[static_cast<std::size_t>(index)].counters = counters_from(event);
    if (const auto threads = numbers_field(event, "vcpu_threads"); index == home_index_ && threads)
      record_.set_threads(*threads);
  } else if (kind == "listening") {
    on_listening(index, event);
  } else if (kind == "ready") {
    on_ready(index);
  } else if (kind == "failed") {
    on_failed(index, event);
  } else if (kind == "stats") {
    on_stats(index, event);
  } else if (kind == "holdings") {
    on_holdings(index, event);
  } else if (kind == "peer-lost") {
    on_peer_lost(index, event);
  } else if (index != home_index_) {
    log::warning("domain {}: host {} sent an unknown event \"{}\"", record_.name, host, kind);
  } else if (kind == "running" && phase_ == Phase::kReady) {
    phase_ = Phase::kRunning;
    record_.state = DomainState::kRunning;
    changed();
    open_members();
  } else if (kind == "exited") {
    on_exited(event);
  } else if (kind == "resolved") {
    on_resolved(event);
  } else if (kind == "migrated") {
    on_migrated(event);
  }
}

void Domain::on_listening(int index, const Json& event) {
  if (phase_ != Phase::kCreating) return;
  const std::uint64_t port = number_or(event, "port", 0);
  if (port == 0 || port > 65535) {
    return fail(kOwnFailure,
                fmt::format("host {}'s slice told no port: install the same xenspan on "
                            "all hosts",
                            record_.members[static_cast<std::size_t>(index)].host));
  }
  members_[static_cast<std::size_t>(index)].port = static_cast<int>(port);
  Json ports = Json::array();
  for (const Member& member : members_) {
    if (member.port == 0) return;
    ports.push_back(member.port);
  }
  send_all({{"op", "peers"}, {"ports", ports}});
}

void Domain::on_ready(int index) {
  if (phase_ != Phase::kCreating) return;
  members_[static_cast<std::size_t>(index)].ready = true;
  set_member_state(index, MemberState::kActive);
  changed();
  if (!std::all_of(members_.begin(), members_.end(), [](const Member& each) { return each.ready; }))
    return;
  phase_ = Phase::kReady;
  limit_.reset();
  order_home({{"op", "start"}});
}

void Domain::on_exited(const Json& event) {
  if (phase_ >= Phase::kExited) return;
  phase_ = Phase::kExited;
  close_members();
  outcome_.status = static_cast<int>(std::min<std::uint64_t>(number_or(event, "status", 125), 255));
  outcome_.signal = static_cast<int>(std::min<std::uint64_t>(number_or(event, "signal", 0), 64));
  outcome_.message = text_or(event, "message", "");
  log::info("domain {}: the program ended with status {}", record_.name, outcome_.status);
  if (!spec_.stats) return stop_all("the program has ended");
  collect_stats([this](Result<Json> stats) {
    if (stats) outcome_.stats = std::move(*stats);
    stop_all("the program has ended");
  });
}

void Domain::on_failed(int index, const Json& event) {
  const std::string& host = record_.members[static_cast<std::size_t>(index)].host;
  const std::string error = text_or(event, "error", "its slice failed without saying why");
  const int status =
      static_cast<int>(std::clamp<std::uint64_t>(number_or(event, "status", 125), 1, 255));
  record_.members[static_cast<std::size_t>(index)].error = error;
  if (phase_ >= Phase::kExited) return;
  const bool may_end_well = loss_ != nullptr && !loss_->stops;
  if (loss_ != nullptr && (!may_end_well || is_lost(index))) return;
  if (may_end_well && loss_->rebuilding)
    return rebuild_failed(fmt::format("host {}: {}", host, error));
  const int lost = lost_host_in(error);
  if (lost >= 0 && lost != home_index_ && lose(lost, error, DomainLoss::Source::kSlice)) return;
  // It could not do without the home. The home's slice does not reach it either, and goes on.
  if (lost == home_index_ && index != home_index_ && phase_ == Phase::kRunning &&
      spec_.kind != xenstore::Backend::kXen)
    return note_unreached({home_index_, index, "it says that " + error});
  // What one slice sees of another's death is the loss of a connection. How that one died may
  // follow.
  better_cause_wanted_ = status == kOwnFailure;
  fail(status, index == home_index_ ? error : fmt::format("host {}: {}", host, error));
}

void Domain::fail(int status, const std::string& cause) {
  if (phase_ >= Phase::kExited) return;
  outcome_.status = status;
  outcome_.failed = true;
  outcome_.message = cause;
  log::warning("domain {} ({}) ends: {}", record_.name, record_.uuid, cause);
  stop_all(cause);
}

void Domain::destroy(const std::string& by) {
  if (phase_ >= Phase::kExited) return;
  outcome_.status = 128 + SIGKILL;
  outcome_.signal = SIGKILL;
  outcome_.message = fmt::format("domain {} was destroyed by {}", record_.name, by);
  log::info("domain {} ({}): destroyed by {}", record_.name, record_.uuid, by);
  stop_all(outcome_.message);
}

void Domain::stop_all(const std::string& cause) {
  if (phase_ >= Phase::kStopping) return;
  phase_ = Phase::kStopping;
  loop_.later([loss = std::shared_ptr<DomainLoss>(std::move(loss_))] {});
  limit_.reset();
  close_members();
  for (std::size_t i = 0; i < members_.size(); ++i)
    if (!members_[i].gone) links_.stop_slice(record_.members[i].host, record_.uuid, cause);
}

void Domain::slice_ended(const std::string& host, const SliceEnd& end) {
  const int index = index_of(host);
  if (index < 0) return;
  members_[static_cast<std::size_t>(index)].ended = true;
  if (members_[static_cast<std::size_t>(index)].lost) return;
  if (member_ended(index, slice_end_text(end))) return;
  if (!end.wanted) {
    const std::string cause = fmt::format("lost host {}: {}", host, slice_end_text(end));
    members_[static_cast<std::size_t>(index)].gone = true;
    if (lose(index, slice_end_text(end), DomainLoss::Source::kEnd)) {
      // The rest follows.
    } else if (phase_ < Phase::kExited) {
      fail(kOwnFailure, cause);
    } else if (better_cause_wanted_ && end.by_signal) {
      outcome_.message = cause;
      better_cause_wanted_ = false;
      log::warning("domain {} ({}): {}", record_.name, record_.uuid, cause);
    }
    if (loss_ == nullptr) set_member_state(index, MemberState::kFailed);
  } else {
    set_member_state(index, MemberState::kLeft);
  }
  member_gone(index);
}

void Domain::slice_failed(const std::string& host, const std::string& error) {
  const int index = index_of(host);
  if (index < 0) return;
  members_[static_cast<std::size_t>(index)].ended = true;
  if (members_[static_cast<std::size_t>(index)].lost) return;
  if (member_ended(index, error)) return;
  set_member_state(index, MemberState::kFailed);
  record_.members[static_cast<std::size_t>(index)].error = error;
  fail(kOwnFailure, error);
  member_gone(index);
}

void Domain::host_lost(const std::string& host, const std::string& cause) {
  const int index = index_of(host);
  if (index < 0 || phase_ >= Phase::kOver) return;
  if (members_[static_cast<std::size_t>(index)].lost)
    members_[static_cast<std::size_t>(index)].ended = true;
  if (members_[static_cast<std::size_t>(index)].gone) return;
  const std::string sentence = fmt::format("lost host {}: {}", host, cause);
  if (member_ended(index, sentence)) return;
  members_[static_cast<std::size_t>(index)].gone = true;
  // Otherwise what becomes of it is told when that is known.
  if (!lose(index, cause, DomainLoss::Source::kCluster)) {
    set_member_state(index, MemberState::kFailed);
    record_.members[static_cast<std::size_t>(index)].error = sentence;
    fail(kOwnFailure, sentence);
  }
  member_gone(index);
}

void Domain::set_member_state(int index, MemberState state) {
  record_.members[static_cast<std::size_t>(index)].state = state;
}

void Domain::member_gone(int index) {
  members_[static_cast<std::size_t>(index)].gone = true;
  // Nobody waits for the dead.
  if (loss_ != nullptr &&
      std::erase(loss_->waiting, record_.members[static_cast<std::size_t>(index)].host) > 0)
    go_on_with_loss();
  for (auto& [id, request] : stats_) {
    auto& waiting = request.waiting;
    const auto found = std::find(waiting.begin(), waiting.end(),
                                 record_.members[static_cast<std::size_t>(index)].host);
    if (found == waiting.end()) continue;
    waiting.erase(found);
    if (waiting.empty())
      request.limit =
          std::make_unique<Timer>(loop_, milliseconds(0), [this, id = id] { stats_complete(id); });
  }
  if (phase_ >= Phase::kOver || phase_ < Phase::kStopping) return;
  if (!std::all_of(members_.begin(), members_.end(), [](const Member& each) { return each.gone; }))
    return;
  phase_ = Phase::kOver;
  record_.state = outcome_.failed ? DomainState::kFailed : DomainState::kEnded;
  record_.exit_status = static_cast<std::uint32_t>(outcome_.status);
  record_.error = outcome_.message;
  record_.ended = now();
  record_.set_threads(std::vector<std::uint64_t>(record_.vcpus.size()));
  for (DomainMember& member : record_.members) member.counters.threads = 0;
  for (auto& [id, request] : std::exchange(stats_, {}))
    request.done(Error{ESRCH, fmt::format("domain {} has ended", record_.name)});
  for (auto& [id, move] : std::exchange(moves_, {}))
    move.done(Error{ESRCH, fmt::format("domain {} has ended", record_.name)});
  handler_.domain_over(*this);
}

void Domain::signal(int number) {
  if (phase_ == Phase::kRunning || phase_ == Phase::kReady) {
    order_home({{"op", "signal"}, {"signo", number}});
  } else if (phase_ == Phase::kCreating &&
             (number == SIGINT || number == SIGTERM || number == SIGHUP || number == SIGQUIT)) {
    // There is no program yet that could handle it.
    outcome_.status = 128 + number;
    outcome_.signal = number;
    stop_all(fmt::format("signal {} before the program started", number));
  }
}

// The home's slice.
void Domain::order_home(const Json& message) {
  links_.send_to_slice(record_.members[static_cast<std::size_t>(home_index_)].host, record_.uuid,
                       message);
}

void Domain::send_all(const Json& message) {
  for (std::size_t i = 0; i < members_.size(); ++i)
    if (!members_[i].gone && !members_[i].joining)
      links_.send_to_slice(record_.members[i].host, record_.uuid, message);
}

void Domain::collect_stats(StatsDone done) {
  if (phase_ < Phase::kRunning || phase_ >= Phase::kStopping) {
    done(Error{EAGAIN, fmt::format("domain {} is not running: its statistics are gone or not there "
                                   "yet",
                                   record_.name)});
    return;
  }
  const std::uint64_t id = next_stats_++;
  StatsRequest& request = stats_[id];
  request.done = std::move(done);
  for (std::size_t i = 0; i < members_.size(); ++i)
    if (!members_[i].gone && !members_[i].joining)
      request.waiting.push_back(record_.members[i].host);
  // What has come by then is better than nothing.
  request.limit = std::make_unique<Timer>(loop_, kStatsLimit, [this, id] { stats_finish(id, {}); });
  send_all({{"op", "stats"}, {"id", id}});
}

void Domain::on_stats(int index, const Json& event) {
  const auto found = stats_.find(number_or(event, "id", 0));
  if (found == stats_.end()) return;
  StatsRequest& request = found->second;
  const std::string& host = record_.members[static_cast<std::size_t>(index)].host;
  if (std::erase(request.waiting, host) == 0) return;
  request.by_host[host] = event;
  if (request.waiting.empty()) stats_complete(found->first);
}

void Domain::stats_complete(std::uint64_t id) {
  const auto found = stats_.find(id);
  if (found == stats_.end()) return;
  const auto& by_host = found->second.by_host;
  const Json bytes = bytes_to_name(record_, by_host, hottest_pages(by_host));
  if (bytes.empty() || members_[static_cast<std::size_t>(home_index_)].gone)
    return stats_finish(id, {});
  found->second.limit =
      std::make_unique<Timer>(loop_, kStatsLimit, [this, id] { stats_finish(id, {}); });
  order_home({{"op", "resolve"}, {"id", id}, {"bytes", bytes}});
}

void Domain::on_resolved(const Json& event) {
  if (loss_ != nullptr && loss_->naming && number_or(event, "id", 0) == loss_->id)
    return conclude_loss(texts_field(event, "names").value_or(std::vector<std::string>{}));
  stats_finish(number_or(event, "id", 0),
               texts_field(event, "names").value_or(std::vector<std::string>{}));
}

void Domain::stats_finish(std::uint64_t id, const std::vector<std::string>& names) {
  const auto found = stats_.find(id);
  if (found == stats_.end()) return;
  const StatsRequest request = std::move(found->second);
  stats_.erase(found);
  Json report = stats_report(record_, request.by_host, hottest_pages(request.by_host), names);
  for (const HostRecord& host : spec_.placement.hosts)
    report["cores"][host.name] = host.cores.size();
  request.done(std::move(report));
}

void Domain::migrate(std::uint32_t vcpu, const std::string& host, int core, MoveDone done) {
  const int index = index_of(host);
  if (phase_ != Phase::kRunning || index < 0 || vcpu >= record_.vcpus.size())
    return done(Error{
        EAGAIN, fmt::format("domain {} is not running: its vCPUs cannot move", record_.name)});
  if (member_step_ == Membership::Step::kRole)
    return done(
        Error{EAGAIN, fmt::format("the home of domain {} is moving: try again", record_.name)});
  if (is_lost(index) || members_[static_cast<std::size_t>(index)].gone)
    return done(Error{EHOSTDOWN, fmt::format("host {} is lost: choose another", host)});
  const std::uint64_t id = next_move_++;
  moves_[id] = {vcpu, index, core, std::move(done)};
  log::info("domain {}: vCPU {} goes from host {} to host {}, core {}", record_.name, vcpu,
            record_.vcpus[vcpu].host, host, core);
  order_home({{"op", "migrate"}, {"id", id}, {"vcpu", vcpu}, {"host", index}, {"core", core}});
}

void Domain::tell_move(std::string last_move) {
  record_.last_move = std::move(last_move);
  changed();
}

void Domain::on_migrated(const Json& event) {
  const auto found = moves_.find(number_or(event, "id", 0));
  if (found == moves_.end()) return;
  const Move move = std::move(found->second);
  moves_.erase(found);
  const std::string error = text_or(event, "error", "");
  if (!error.empty()) {
    const std::string sentence = fmt::format("vCPU {} of domain {} stays on host {}: {}", move.vcpu,
                                             record_.name, record_.vcpus[move.vcpu].host, error);
    log::warning("{}", sentence);
    return move.done(Error{EAGAIN, sentence});
  }
  place_vcpu(move.vcpu, move.host, move.core);
  changed();
  move.done(Json{{"threads", number_or(event, "threads", 0)},
                 {"waiting", number_or(event, "waiting", 0)},
                 {"us", number_or(event, "us", 0)}});
}

// In what everybody may know of it, and in each host's use of its cores.
void Domain::place_vcpu(std::uint32_t vcpu, int index, int core) {
  const int before = index_of(record_.vcpus[vcpu].host);
  record_.vcpus[vcpu].host = record_.members[static_cast<std::size_t>(index)].host;
  record_.vcpus[vcpu].core = core;
  for (const int changed : {before, index}) {
    DomainMember& member = record_.members[static_cast<std::size_t>(changed)];
    std::vector<int> cores;
    for (const DomainVcpu& each : record_.vcpus)
      if (each.host == member.host) cores.push_back(each.core);
    member.vcpus = static_cast<int>(cores.size());
    // Under Xen they are Xen's processors.
    if (spec_.kind != xenstore::Backend::kXen)
      links_.set_slice_cores(member.host, record_.uuid, cores);
    if (before == index) break;
  }
}

}  // namespace xenspan::daemon
