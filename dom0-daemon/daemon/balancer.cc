#include "dom0-daemon/daemon/balancer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>

#include "base/log.h"
#include "dom0-daemon/daemon/placement.h"

namespace xenspan::daemon {
namespace {

using xenstore::Policy;

constexpr double kLookEvery = 5;  // seconds between questions who fights

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int index_of(const DomainRecord& record, const std::string& host) {
  for (std::size_t i = 0; i < record.members.size(); ++i)
    if (record.members[i].host == host) return static_cast<int>(i);
  return -1;
}

std::vector<BalanceVcpu> vcpus_of(const DomainRecord& record) {
  std::vector<BalanceVcpu> vcpus;
  for (const DomainVcpu& vcpu : record.vcpus)
    vcpus.push_back({index_of(record, vcpu.host), vcpu.core, vcpu.threads > 0});
  return vcpus;
}

// This domain's vCPUs on each of the host's cores.
std::vector<int> own_use(const DomainRecord& record, const HostRecord& host) {
  std::vector<int> use;
  for (const int core : host.cores)
    use.push_back(static_cast<int>(std::count_if(
        record.vcpus.begin(), record.vcpus.end(),
        [&](const DomainVcpu& vcpu) { return vcpu.host == host.name && vcpu.core == core; })));
  return use;
}

std::optional<std::size_t> number_below(const std::string& text, std::size_t limit) {
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number >= limit) return {};
  return number;
}

// `sharing.vcpus` of a report of statistics.
std::vector<std::vector<std::uint64_t>> takes_from(const Json& stats, std::size_t vcpus) {
  std::vector<std::vector<std::uint64_t>> takes(vcpus, std::vector<std::uint64_t>(vcpus));
  const Json* sharing = object_field(stats, "sharing");
  const Json* rows = sharing == nullptr ? nullptr : object_field(*sharing, "vcpus");
  if (rows == nullptr) return takes;
  for (const auto& [row, columns] : rows->items()) {
    const auto i = number_below(row, vcpus);
    if (!i || !columns.is_object()) continue;
    for (const auto& [column, value] : columns.items())
      if (const auto j = number_below(column, vcpus))
        takes[*i][*j] = whole_number(value).value_or(0);
  }
  return takes;
}

}  // namespace

void Balancer::tick() {
  const double now = seconds_now();
  std::map<std::string, State> live;
  for (Domain* domain : domains_.running()) {
    const DomainRecord& record = domain->record();
    if (record.policy != Policy::kLoad && record.policy != Policy::kAffinity) continue;
    if (record.members.size() < 2) continue;
    if (auto known = states_.extract(record.uuid)) live.insert(std::move(known));
    live.try_emplace(record.uuid);
  }
  states_ = std::move(live);
  for (Domain* domain : domains_.running()) {
    const auto found = states_.find(domain->record().uuid);
    if (found == states_.end() || found->second.busy) continue;
    State& state = found->second;
    if (!state.to_do.empty()) {
      const BalanceMove next = state.to_do.front();
      state.to_do.pop_front();
      move(*domain, state, next);
    } else if (domain->record().policy == Policy::kLoad) {
      look_at_load(*domain, state, now);
    } else if (now >= state.next_look) {
      look_at_fights(*domain, state, now);
    }
  }
}

void Balancer::look_at_load(Domain& domain, State& state, double now) {
  const DomainRecord& record = domain.record();
  std::vector<BalanceCore> cores;
  for (std::size_t i = 0; i < record.members.size(); ++i) {
    const auto host = record_of_(record.members[i].host);
    if (record.members[i].state != xenstore::MemberState::kActive || !host ||
        host->others.size() != host->cores.size())
      continue;
    const std::vector<int> own = own_use(record, *host);
    for (std::size_t k = 0; k < host->cores.size(); ++k)
      cores.push_back({static_cast<int>(i), host->cores[k], host->others[k] / 1000.0,
                       std::max(own[k], k < host->core_use.size() ? host->core_use[k] : 0)});
  }
  if (const auto wanted = state.load.sample(now, std::move(cores), vcpus_of(record)))
    move(domain, state, *wanted);
}

void Balancer::look_at_fights(Domain& domain, State& state, double now) {
  state.next_look = now + kLookEvery;
  state.busy = true;
  domain.collect_stats([this, uuid = domain.record().uuid](const Result<Json>& stats) {
    const auto found = states_.find(uuid);
    if (found == states_.end()) return;
    found->second.busy = false;
    if (stats) on_fights(uuid, *stats);
  });
}

void Balancer::on_fights(const std::string& uuid, const Json& stats) {
  Domain* domain = domains_.own(uuid);
  if (domain == nullptr) return;
  const DomainRecord& record = domain->record();
  std::vector<int> room;
  for (const DomainMember& member : record.members) {
    const auto host = record_of_(member.host);
    const bool active = member.state == xenstore::MemberState::kActive && host;
    room.push_back(active ? static_cast<int>(host->cores.size()) : 0);
  }
  State& state = states_[uuid];
  for (BalanceMove& each : state.affinity.sample(
           seconds_now(), takes_from(stats, record.vcpus.size()), vcpus_of(record), room))
    state.to_do.push_back(std::move(each));
}

void Balancer::move(Domain& domain, State& state, const BalanceMove& wanted) {
  const DomainRecord& record = domain.record();
  const std::string to = record.members[static_cast<std::size_t>(wanted.host)].host;
  const std::string from = record.vcpus[wanted.vcpu].host;
  const auto host = record_of_(to);
  if (from == to || !host) return;
  // Which core is best is known where loads are looked at.
  const int core = record.policy == Policy::kLoad ? wanted.core
                                                  : choose_core(*host, own_use(record, *host)).core;
  const std::string text =
      fmt::format("vCPU {} from host {} to host {}: {}", wanted.vcpu, from, to, wanted.reason);
  log::info("domain {}: policy {}: {}", record.name, xenstore::to_word(record.policy), text);
  state.busy = true;
  domain.migrate(static_cast<std::uint32_t>(wanted.vcpu), to, core,
                 [this, uuid = record.uuid, vcpu = wanted.vcpu, text](const Result<Json>& moved) {
                   const auto found = states_.find(uuid);
                   if (found == states_.end()) return;
                   found->second.busy = false;
                   found->second.load.moved(vcpu, seconds_now());
                   found->second.affinity.moved(vcpu, seconds_now());
                   Domain* its = domains_.own(uuid);
                   if (moved && its != nullptr) its->tell_move(text);
                 });
}

}  // namespace xenspan::daemon
