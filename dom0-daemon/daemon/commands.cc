#include "dom0-daemon/daemon/commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "config.h"
#include "dom0-daemon/daemon/names.h"
#include "dom0-daemon/daemon/stats_report.h"
#include "dsm-rdma/features.h"
#include "dsm-rdma/types.h"

namespace xenspan::daemon {
namespace {

constexpr std::uint64_t kMaxFdNumber = 1 << 20;
constexpr int kMaxSignal = 64;

Error malformed(const char* what) {
  return Error{EBADMSG, fmt::format("malformed request: {}: use the xenspan command of the same "
                                    "version as the daemon's ({})",
                                    what, PACKAGE_VERSION)};
}

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

Json host_line(const HostRecord& record, const char* state, bool here) {
  return Json{{"name", record.name},
              {"state", state},
              {"address", record.address},
              {"port", record.port},
              {"cores", record.cores},
              {"vcpus", record.vcpus()},
              {"memory", record.memory},
              {"memory_free", record.memory_free()},
              {"rdma", record.rdma.device},
              {"rdma_problem", record.rdma.problem},
              {"version", record.version},
              {"error", ""},
              {"here", here}};
}

}  // namespace

Commands::Commands(const Config& config, Cluster& cluster, DomainTable& domains,
                   std::function<HostRecord()> own_record)
    : config_(config), cluster_(cluster), domains_(domains), own_record_(std::move(own_record)) {}

void Commands::answer(ClientId client, Json message) {
  message["ok"] = true;
  socket_->send(client, message);
}

void Commands::refuse(ClientId client, const std::string& error) {
  socket_->send(client, {{"ok", false}, {"error", error}});
}

void Commands::client_message(ClientId client, const User& user, const Json& message,
                              std::vector<UniqueFd> fds) {
  const std::string op = text_or(message, "op", "");
  if (op == "run") return run(client, user, message, std::move(fds));
  if (op == "signal" || op == "detach") return steer(client, op, message);
  if (op == "list") return list(client);
  if (op == "hosts") return hosts(client);
  if (op == "destroy") return destroy(client, user, message);
  if (op == "stats") return stats(client, user, message);
  if (op == "migrate") return migrate(client, user, message);
  if (op == "member") return member(client, user, message);
  refuse(client, malformed("unknown operation").message);
}

void Commands::client_closed(ClientId client) {
  std::vector<std::string> left_alone;
  for (const auto& [uuid, owner] : attached_)
    if (owner == client) left_alone.push_back(uuid);
  for (const std::string& uuid : left_alone) {
    attached_.erase(uuid);
    if (Domain* domain = domains_.own(uuid))
      domain->destroy("the end of its xenspan command");
    else
      close_away(uuid);
  }
  for (auto& [uuid, waiting] : destroying_) waiting.erase(client);
  std::erase_if(remote_stats_, [&](const auto& each) { return each.second == client; });
  std::erase_if(remote_moves_, [&](const auto& each) { return each.second.first == client; });
}

Result<Placement> Commands::choose_placement(const Json& message) {
  PlacementRequest request;
  request.home = config_.name;
  const std::uint64_t vcpus = number_or(message, "vcpus", 0);
  request.vcpus = vcpus > kMaxVcpus ? kMaxVcpus + 1 : static_cast<int>(vcpus);
  request.memory = number_or(message, "memory", 0);
  request.pack = text_or(message, "policy", "") == xenstore::to_word(xenstore::Policy::kPack);
  request.hosts = texts_field(message, "hosts").value_or(std::vector<std::string>{});
  std::vector<HostChoice> known;
  known.push_back({config_.name, true, "", own_record_()});
  for (const auto& [name, peer] : cluster_.peers())
    known.push_back(
        {name, peer.state == HostState::kActive, peer.error, peer.record.value_or(HostRecord{})});
  return place(request, known);
}

Result<DomainSpec> Commands::make_spec(const User& user, const Json& message,
                                       std::vector<UniqueFd> fds) {
  DomainSpec spec;
  spec.uuid = random_uuid();
  spec.user = user;
  spec.program = text_or(message, "program", "");
  const auto argv = texts_field(message, "argv");
  const auto env = texts_field(message, "env");
  const auto numbers = numbers_field(message, "fds");
  if (spec.program.empty() || !argv || argv->empty() || !env) return malformed("program");
  if (!numbers || numbers->size() != fds.size()) return malformed("open files");
  spec.argv = *argv;
  spec.env = *env;
  std::set<std::uint64_t> seen;
  for (const std::uint64_t number : *numbers) {
    if (number >= kMaxFdNumber || !seen.insert(number).second) return malformed("open files");
    spec.fd_numbers.push_back(static_cast<int>(number));
  }
  spec.fds = std::move(fds);
  spec.cwd = text_or(message, "cwd", "/");
  spec.umask = static_cast<unsigned>(number_or(message, "umask", 022) & 0777);
  spec.start_within = config_.start_within;
  spec.stats = flag_field(message, "stats");
  spec.prefetch = number_or(message, "prefetch", dsm::kMostPrefetch);
  spec.without = texts_field(message, "without").value_or(std::vector<std::string>{});
  if (const auto known = dsm::features_of(spec.without); !known) return known.error();

  const std::string name = text_or(message, "name", "");
  if (!name.empty() && !is_domain_name(name))
    return Error{EINVAL, fmt::format("name \"{}\" is not a domain name: use letters, digits, '-' "
                                     "and '_', at most 63",
                                     name)};
  if (!name.empty() && domains_.name_in_use(name))
    return Error{EEXIST, fmt::format("a domain named {} is running: choose another --name, or "
                                     "`xenspan destroy {}`",
                                     name, name)};
  spec.name = name.empty() ? domains_.free_name(base_name(spec.program)) : name;
  const std::string policy_word = text_or(message, "policy", "");
  const auto policy = xenstore::from_word<xenstore::Policy>(policy_word);
  if (!policy && !policy_word.empty())
    return Error{EINVAL, fmt::format("policy \"{}\": use {}", xenstore::encode_text(policy_word),
                                     xenstore::words_of<xenstore::Policy>())};
  spec.policy = policy.value_or(xenstore::Policy::kSpread);
  auto placement = choose_placement(message);
  if (!placement) return placement.error();
  spec.placement = std::move(*placement);
  const std::string word = text_or(message, "transport", "");
  const auto wish = word.empty() ? config_.transport : transport_wish_from(word);
  if (!wish)
    return Error{EINVAL, fmt::format("transport \"{}\": use {}", xenstore::encode_text(word),
                                     kTransportWords)};
  const auto transport = choose_transport(*wish, spec.placement.hosts);
  if (!transport) return transport.error();
  spec.transport = *transport;
  spec.lost_after = config_.lost_after;
  spec.stats_host = config_.name;
  return spec;
}

void Commands::run(ClientId client, const User& user, const Json& message,
                   std::vector<UniqueFd> fds) {
  auto spec = make_spec(user, message, std::move(fds));
  if (!spec) {
    socket_->send(client, {{"event", "failed"}, {"status", 125}, {"error", spec.error().message}});
    return;
  }
  std::vector<std::string> hosts;
  for (const HostRecord& host : spec->placement.hosts) hosts.push_back(host.name);
  const std::string uuid = spec->uuid;
  attached_[uuid] = client;
  socket_->send(client, {{"event", "starting"},
                         {"domain", uuid},
                         {"name", spec->name},
                         {"hosts", hosts},
                         {"vcpus", spec->placement.vcpus.size()}});
  domains_.start(std::move(*spec));
}

void Commands::domain_changed(const DomainRecord& record) {
  const auto owner = attached_.find(record.uuid);
  if (owner != attached_.end() && record.state == xenstore::DomainState::kRunning)
    socket_->send(owner->second, {{"event", "running"}, {"domain", record.uuid}});
  const auto active = [](const DomainMember& member) {
    return member.state == xenstore::MemberState::kActive;
  };
  if (owner != attached_.end() && record.state == xenstore::DomainState::kCreating &&
      std::all_of(record.members.begin(), record.members.end(), active))
    socket_->send(owner->second, {{"event", "ready"}, {"domain", record.uuid}});
  if (!record.over()) return;
  over_away(record);
  if (const auto found = destroying_.find(record.uuid); found != destroying_.end()) {
    const std::set<ClientId> waiting = std::move(found->second);
    destroying_.erase(found);
    for (const ClientId client : waiting) answer(client, {{"domain", record.uuid}});
  }
}

void Commands::domain_over(const Domain& domain) {
  tell_end(domain.record().uuid, domain.outcome());
}

void Commands::tell_end(const std::string& uuid, const Domain::Outcome& outcome) {
  const auto owner = attached_.find(uuid);
  if (owner == attached_.end()) return;
  const ClientId client = owner->second;
  attached_.erase(owner);
  if (outcome.failed) {
    socket_->send(client,
                  {{"event", "failed"}, {"status", outcome.status}, {"error", outcome.message}});
    return;
  }
  Json event{{"event", "exited"},
             {"status", outcome.status},
             {"signal", outcome.signal},
             {"message", outcome.message}};
  if (!outcome.stats.is_null()) event["stats"] = outcome.stats;
  socket_->send(client, event);
}

// `signal` and `detach` speak of the domain that this client runs: nobody else's.
void Commands::steer(ClientId client, const std::string& op, const Json& message) {
  const std::uint64_t number = number_or(message, "signo", 0);
  for (auto each = attached_.begin(); each != attached_.end(); ++each) {
    if (each->second != client) continue;
    if (op == "detach") {
      attached_.erase(each);
      return answer(client, Json::object());
    }
    if (number < 1 || number > kMaxSignal) return;
    if (Domain* domain = domains_.own(each->first))
      domain->signal(static_cast<int>(number));
    else
      steer_away(each->first, static_cast<int>(number));
    return;
  }
}

void Commands::list(ClientId client) {
  Json domains = Json::array();
  for (const DomainRecord& record : domains_.records()) domains.push_back(to_json(record));
  answer(client, {{"domains", domains}, {"host", config_.name}, {"version", PACKAGE_VERSION}});
}

void Commands::hosts(ClientId client) {
  Json lines = Json::array();
  lines.push_back(host_line(own_record_(), "up", true));
  for (const auto& [name, peer] : cluster_.peers()) {
    HostRecord record = peer.record.value_or(HostRecord{});
    record.name = name;
    record.address = peer.address.address;
    record.port = peer.address.port;
    Json line = host_line(record, host_state_text(peer.state), false);
    line["error"] = peer.error;
    lines.push_back(line);
  }
  answer(client, {{"hosts", lines}, {"host", config_.name}, {"version", PACKAGE_VERSION}});
}

Result<DomainRecord> Commands::managed_domain(const User& user, const Json& message) const {
  auto record = domains_.find(text_or(message, "domain", ""));
  if (!record) return record;
  if (!user.may_manage(record->uid))
    return Error{EPERM, fmt::format("domain {} belongs to {}: ask {} or use sudo", record->name,
                                    record->user, record->user)};
  return record;
}

Status Commands::destroy_domain(const DomainRecord& record, const std::string& by) {
  if (Domain* domain = domains_.own(record.uuid)) {
    domain->destroy(by);
    return {};
  }
  if (record.over()) return Error{ESRCH, fmt::format("domain {} has ended already", record.name)};
  if (!cluster_.send(record.home, {{"op", "domain-destroy"}, {"uuid", record.uuid}, {"by", by}}))
    return Error{EHOSTDOWN, fmt::format("host {}, the home of domain {}, is not connected: see "
                                        "`xenspan hosts`",
                                        record.home, record.name)};
  return {};
}

void Commands::destroy(ClientId client, const User& user, const Json& message) {
  const auto record = managed_domain(user, message);
  if (!record) return refuse(client, record.error().message);
  destroying_[record->uuid].insert(client);
  const Status done =
      destroy_domain(*record, fmt::format("{} on host {}", user.name, config_.name));
  if (done) return;
  destroying_.erase(record->uuid);
  refuse(client, done.error().message);
}

Status Commands::destroy_requested(const std::string& uuid) {
  const DomainRecord* record = domains_.record(uuid);
  if (record == nullptr) return Error{ENOENT, "this xenspand knows no such domain"};
  return destroy_domain(DomainRecord(*record), "a xenstore request on host " + config_.name);
}

void Commands::stats(ClientId client, const User& user, const Json& message) {
  const auto record = managed_domain(user, message);
  if (!record) return refuse(client, record.error().message);
  if (Domain* domain = domains_.own(record->uuid)) {
    domain->collect_stats([this, client](const Result<Json>& stats) {
      if (stats)
        answer(client, {{"stats", *stats}});
      else
        refuse(client, stats.error().message);
    });
    return;
  }
  if (record->over())
    return refuse(client, fmt::format("domain {} has ended: its statistics are gone; `xenspan run "
                                      "--stats` keeps them",
                                      record->name));
  const std::uint64_t id = next_stats_++;
  if (!cluster_.send(record->home, {{"op", "stats-request"}, {"uuid", record->uuid}, {"id", id}}))
    return refuse(client, fmt::format("host {}, the home of domain {}, is not connected: see "
                                      "`xenspan hosts`",
                                      record->home, record->name));
  remote_stats_[id] = client;
}

void Commands::peer_stats(const std::string& host, const Json& message) {
  const std::uint64_t id = number_or(message, "id", 0);
  Domain* domain = domains_.own(text_or(message, "uuid", ""));
  const auto reply = [this, host, id](const Result<Json>& stats) {
    Json result{{"op", "stats-reply"}, {"id", id}};
    if (stats)
      result["stats"] = *stats;
    else
      result["error"] = stats.error().message;
    cluster_.send(host, result);
  };
  if (domain == nullptr) return reply(Error{ESRCH, "the domain has ended"});
  domain->collect_stats(reply);
}

bool Commands::handle(const std::string& host, const std::string& op, const Json& message) {
  if (op == "domain-destroy") {
    if (Domain* domain = domains_.own(text_or(message, "uuid", "")))
      domain->destroy(xenstore::encode_text(text_or(message, "by", "host " + host)));
  } else if (op == "stats-request") {
    peer_stats(host, message);
  } else if (op == "stats-reply") {
    const auto found = remote_stats_.find(number_or(message, "id", 0));
    if (found == remote_stats_.end()) return true;
    const ClientId client = found->second;
    remote_stats_.erase(found);
    if (const Json* stats = object_field(message, "stats"))
      answer(client, {{"stats", *stats}});
    else
      refuse(client, text_or(message, "error", "no statistics"));
  } else {
    return handle_away(host, op, message) || handle_at_home(host, op, message);
  }
  return true;
}

}  // namespace xenspan::daemon
