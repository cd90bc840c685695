#include "dom0-daemon/daemon/domain_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "base/log.h"
#include "dom0-daemon/daemon/names.h"

namespace xenspan::daemon {
namespace {

// What one peer may make this daemon remember.
constexpr std::size_t kMaxMirrored = 4096;

}  // namespace

DomainTable::DomainTable(EventLoop& loop, const Config& config, Cluster& cluster, SliceLinks& links,
                         Votes& votes)
    : loop_(loop), config_(config), cluster_(cluster), links_(links), votes_(votes) {}

void DomainTable::set_callbacks(OnChange on_change, OnOver on_over) {
  on_change_ = std::move(on_change);
  on_over_ = std::move(on_over);
}

void DomainTable::start(DomainSpec spec) {
  const std::string uuid = spec.uuid;
  auto domain = std::make_unique<Domain>(loop_, links_, *this, std::move(spec));
  Domain& started = *domain;
  others_.erase(uuid);
  own_.emplace(uuid, std::move(domain));
  started.start();
}

void DomainTable::put_own(DomainRecord record) {
  const DomainRecord copy = others_[record.uuid] = std::move(record);
  publish(copy);
  if (on_change_) on_change_(copy);
  prune(config_.name);
}

Domain* DomainTable::own(const std::string& uuid) {
  const auto found = own_.find(uuid);
  return found == own_.end() ? nullptr : found->second.get();
}

const DomainRecord* DomainTable::record(const std::string& uuid) const {
  if (const auto found = own_.find(uuid); found != own_.end()) return &found->second->record();
  const auto found = others_.find(uuid);
  return found == others_.end() ? nullptr : &found->second;
}

std::vector<DomainRecord> DomainTable::records() const {
  std::vector<DomainRecord> records;
  for (const auto& [uuid, domain] : own_) records.push_back(domain->record());
  for (const auto& [uuid, record] : others_) records.push_back(record);
  std::stable_sort(records.begin(), records.end(),
                   [](const auto& a, const auto& b) { return a.created < b.created; });
  return records;
}

Result<DomainRecord> DomainTable::find(const std::string& text) const {
  std::vector<DomainRecord> live;
  std::vector<DomainRecord> over;
  for (DomainRecord& each : records()) {
    const bool match = !text.empty() && (each.name == text || each.uuid.starts_with(text));
    if (match) (each.over() ? over : live).push_back(std::move(each));
  }
  if (live.size() > 1)
    return Error{EEXIST, fmt::format("{} domains are named {}: use the uuid, see `xenspan list`",
                                     live.size(), text)};
  if (!live.empty()) return live.front();
  // The latest of those that have ended.
  if (!over.empty()) return over.back();
  return Error{ENOENT, fmt::format("no such domain: {}: see `xenspan list`", text)};
}

bool DomainTable::name_in_use(const std::string& name) const {
  const auto all = records();
  return std::any_of(all.begin(), all.end(),
                     [&](const DomainRecord& each) { return each.name == name && !each.over(); });
}

std::string DomainTable::free_name(const std::string& wish) const {
  std::string base;
  for (const char c : wish) base += is_domain_name(std::string("a") + c) ? c : '-';
  base = base.substr(0, 50);
  if (!is_domain_name(base)) base = "domain";
  std::string name = base;
  for (int number = 2; name_in_use(name); ++number) name = fmt::format("{}-{}", base, number);
  return name;
}

void DomainTable::publish(const DomainRecord& record) {
  if (story_ != nullptr) story_->put_domain(record);
  cluster_.send_to_all({{"op", "domain-record"}, {"record", to_json(record)}});
}

void DomainTable::domain_changed(Domain& domain) {
  publish(domain.record());
  if (on_change_) on_change_(domain.record());
}

void DomainTable::domain_over(Domain& domain) {
  const std::string uuid = domain.record().uuid;
  tell_outcome(domain);
  publish(domain.record());
  const auto found = own_.find(uuid);
  // The domain is on the call stack: it goes when that has returned.
  const std::shared_ptr<Domain> ended(std::move(found->second));
  own_.erase(found);
  others_[uuid] = ended->record();
  loop_.later([ended] {});
  if (on_over_) on_over_(*ended);
  if (on_change_) on_change_(ended->record());
  prune(config_.name);
}

// To the command that waits for it where the domain began.
void DomainTable::tell_outcome(const Domain& domain) {
  const std::string& host = domain.stats_host();
  if (host.empty() || host == config_.name) return;
  const Domain::Outcome& outcome = domain.outcome();
  cluster_.send(host, {{"op", "domain-outcome"},
                       {"uuid", domain.record().uuid},
                       {"status", outcome.status},
                       {"signal", outcome.signal},
                       {"failed", outcome.failed},
                       {"message", outcome.message},
                       {"stats", outcome.stats}});
}

void DomainTable::forget(const std::string& uuid) {
  others_.erase(uuid);
  if (story_ != nullptr) story_->remove_domain(uuid);
}

void DomainTable::prune(const std::string& home) {
  std::vector<std::pair<std::uint64_t, std::string>> over;
  for (const auto& [uuid, record] : others_)
    if (record.home == home && record.over()) over.emplace_back(record.ended, uuid);
  std::sort(over.begin(), over.end());
  for (std::size_t i = 0; i + kEndedKept < over.size(); ++i) {
    forget(over[i].second);
    if (home == config_.name)
      cluster_.send_to_all({{"op", "domain-removed"}, {"uuid", over[i].second}});
  }
}

bool DomainTable::handle(const std::string& host, const std::string& op, const Json& message) {
  if (op == "domain-record") {
    put_mirror(host, message);
  } else if (op == "domain-counters") {
    const auto found = others_.find(text_or(message, "uuid", ""));
    const Json* members = object_field(message, "members");
    if (found == others_.end() || found->second.home != host || members == nullptr) return true;
    for (DomainMember& member : found->second.members)
      if (const Json* counters = object_field(*members, member.host.c_str()))
        member.counters = counters_from(*counters);
    if (const auto threads = numbers_field(message, "vcpu_threads"))
      found->second.set_threads(*threads);
    if (story_ != nullptr) story_->put_counters(found->second);
  } else if (op == "domain-role") {
    take_role(host, message);
  } else if (op == "domain-role-taken") {
    role_answered(host, message);
  } else if (op == "domain-removed") {
    const auto found = others_.find(text_or(message, "uuid", ""));
    if (found != others_.end() && found->second.home == host) forget(found->first);
  } else {
    return false;
  }
  return true;
}

void DomainTable::put_mirror(const std::string& host, const Json& message) {
  const Json* object = object_field(message, "record");
  auto record = object == nullptr ? Result<DomainRecord>(Error{EBADMSG, "no record"})
                                  : domain_record_from(*object);
  if (!record) {
    log::warning("host {} sent a malformed domain record: {}", host, record.error().message);
    return;
  }
  // A home speaks for its own domains only; also one that was another's before.
  const auto known = others_.find(record->uuid);
  const auto& former = record->former_homes;
  if (record->home != host || own_.contains(record->uuid) ||
      (known != others_.end() && known->second.home != host &&
       std::find(former.begin(), former.end(), known->second.home) == former.end()) ||
      (known == others_.end() && others_.size() >= kMaxMirrored)) {
    log::warning("host {} sent a record of a domain that is not its own", host);
    return;
  }
  DomainRecord& kept = others_[record->uuid] = std::move(*record);
  if (story_ != nullptr) story_->put_domain(kept);
  const DomainRecord copy = kept;
  settle_waits(copy);
  if (on_change_) on_change_(copy);
  prune(host);
}

void DomainTable::host_joined(const std::string& host) {
  // What it tells now replaces what it told before it was lost.
  std::vector<std::string> old;
  for (const auto& [uuid, record] : others_)
    if (record.home == host) old.push_back(uuid);
  for (const std::string& uuid : old) forget(uuid);
  for (const DomainRecord& record : records())
    if (record.home == config_.name)
      cluster_.send(host, {{"op", "domain-record"}, {"record", to_json(record)}});
}

void DomainTable::host_lost(const std::string& host, const std::string& cause) {
  std::vector<std::string> uuids;
  for (const auto& [uuid, domain] : own_) uuids.push_back(uuid);
  for (const std::string& uuid : uuids)
    if (Domain* domain = own(uuid)) domain->host_lost(host, cause);
  std::vector<DomainRecord> ended;
  for (auto& [uuid, record] : others_) {
    if (record.home != host || record.over()) continue;
    record.state = xenstore::DomainState::kFailed;
    record.error = fmt::format("lost host {}: {}", host, cause);
    record.ended = static_cast<std::uint64_t>(std::time(nullptr));
    if (story_ != nullptr) story_->put_domain(record);
    ended.push_back(record);
  }
  for (const DomainRecord& record : ended) {
    settle_waits(record);
    if (on_change_) on_change_(record);
  }
}

std::vector<Domain*> DomainTable::running() {
  std::vector<Domain*> domains;
  for (const auto& [uuid, domain] : own_)
    if (domain->record().state == xenstore::DomainState::kRunning && !domain->stopping())
      domains.push_back(domain.get());
  return domains;
}

void DomainTable::agreed(const Agreed& agreed) {
  if (Domain* domain = own(agreed.uuid)) {
    domain->agreed(agreed);
  } else if (agreed.home_lost) {
    end_mirror(agreed.uuid,
               fmt::format("lost host {}, the domain's home (epoch {}, agreed on by {})",
                           agreed.gone.front(), agreed.epoch, list_text(agreed.by)));
  }
}

void DomainTable::fenced(const std::string& uuid, const std::string& cause) {
  if (Domain* domain = own(uuid))
    domain->fail(125, cause);
  else
    end_mirror(uuid, cause);
}

// What its home can no longer say.
void DomainTable::end_mirror(const std::string& uuid, const std::string& cause) {
  const auto found = others_.find(uuid);
  if (found == others_.end()) return;
  DomainRecord& record = found->second;
  if (!record.over()) record.ended = static_cast<std::uint64_t>(std::time(nullptr));
  record.state = xenstore::DomainState::kFailed;
  record.error = cause;
  if (story_ != nullptr) story_->put_domain(record);
  const DomainRecord copy = record;
  if (on_change_) on_change_(copy);
}

void DomainTable::tick() {
  for (const auto& [uuid, domain] : own_) {
    const DomainRecord& record = domain->record();
    if (record.state != xenstore::DomainState::kRunning) continue;
    if (story_ != nullptr) story_->put_counters(record);
    Json members = Json::object();
    for (const DomainMember& member : record.members)
      if (!member.forgotten) members[member.host] = to_json(member.counters);
    cluster_.send_to_all({{"op", "domain-counters"},
                          {"uuid", uuid},
                          {"members", members},
                          {"vcpu_threads", record.threads()}});
  }
}

void DomainTable::tell_all() {
  if (story_ == nullptr) return;
  for (const DomainRecord& record : records()) story_->put_domain(record);
}

void DomainTable::end_all(const std::string& cause) {
  std::vector<std::string> uuids;
  for (const auto& [uuid, domain] : own_) uuids.push_back(uuid);
  for (const std::string& uuid : uuids)
    if (Domain* domain = own(uuid)) domain->fail(125, cause);
}

}  // namespace xenspan::daemon
