// `xenspan migrate`: a vCPU of a running domain goes to another of its hosts. Checked at the
// domain's home, wherever it was asked for.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "dom0-daemon/daemon/commands.h"
#include "dom0-daemon/daemon/names.h"

namespace xenspan::daemon {
namespace {

std::string host_names(const DomainRecord& record) {
  std::string text;
  for (const DomainMember& member : record.members)
    text += (text.empty() ? "" : ", ") + member.host;
  return text;
}

}  // namespace

// The number of the vCPU, or why it cannot go to that host.
Result<std::uint32_t> Commands::check_move(const DomainRecord& record, const Json& wish) const {
  const std::string host = text_or(wish, "host", "");
  const auto vcpu = number_field(wish, "vcpu");
  if (record.state != xenstore::DomainState::kRunning)
    return Error{ESRCH,
                 fmt::format("domain {} is not running: see `xenspan list -a`", record.name)};
  if (!vcpu || *vcpu >= record.vcpus.size())
    return Error{EINVAL, fmt::format("domain {} has no vCPU {}: its vCPUs are 0 to {}", record.name,
                                     vcpu ? std::to_string(*vcpu) : "of that number",
                                     record.vcpus.size() - 1)};
  const auto member = std::find_if(record.members.begin(), record.members.end(),
                                   [&](const DomainMember& each) { return each.host == host; });
  if (member == record.members.end())
    return Error{ENOENT, fmt::format("host {} is not a member of domain {}: its hosts are {}",
                                     is_host_name(host) ? host : "of that name", record.name,
                                     host_names(record))};
  if (member->state != xenstore::MemberState::kActive)
    return Error{EHOSTDOWN, fmt::format("host {} is {} in domain {}: choose an active one, see "
                                        "`xenspan list --json`",
                                        host, xenstore::to_word(member->state), record.name)};
  if (record.kind != xenstore::Backend::kXen) return static_cast<std::uint32_t>(*vcpu);
  if (*vcpu == 0)
    return Error{EINVAL, fmt::format("vCPU 0 of domain {} stays on its home {}: it is a domain "
                                     "under Xen; move another one",
                                     record.name, record.home)};
  if (flag_field(wish, "alone"))
    return Error{EINVAL, fmt::format("domain {} is one under Xen, whose scheduler gives a vCPU its "
                                     "processor: leave out --alone, and use `xl vcpu-pin`",
                                     record.name)};
  return static_cast<std::uint32_t>(*vcpu);
}

Result<CoreChoice> Commands::choose_core_for(const DomainRecord& record, const std::string& name,
                                             bool alone) const {
  HostRecord host = own_record_();
  if (name != config_.name) {
    const auto peer = cluster_.peers().find(name);
    if (peer == cluster_.peers().end() || peer->second.state != HostState::kActive ||
        !peer->second.record)
      return Error{EHOSTDOWN, fmt::format("host {} is not connected: see `xenspan hosts`", name)};
    host = *peer->second.record;
  }
  // What the host said may be a second old; this domain's vCPUs are known.
  std::vector<int> own(host.cores.size());
  for (std::size_t i = 0; i < own.size(); ++i)
    own[i] = static_cast<int>(std::count_if(
        record.vcpus.begin(), record.vcpus.end(),
        [&](const DomainVcpu& vcpu) { return vcpu.host == name && vcpu.core == host.cores[i]; }));
  const CoreChoice choice = choose_core(host, own);
  if (alone && choice.shared > 0)
    return Error{EBUSY, fmt::format("host {} has no free core ({} of {} in use): leave out --alone "
                                    "to share one, or choose another host",
                                    name, host.cores.size(), host.cores.size())};
  return choice;
}

void Commands::move_vcpu(Domain& domain, const Json& wish, Domain::MoveDone done) {
  const DomainRecord& record = domain.record();
  const auto vcpu = check_move(record, wish);
  if (!vcpu) return done(vcpu.error());
  const std::string host = text_or(wish, "host", "");
  Json answer{{"domain", record.uuid}, {"vcpu", *vcpu}, {"host", host}};
  const DomainVcpu& now = record.vcpus[*vcpu];
  if (now.host == host) {
    answer.update({{"core", now.core}, {"threads", now.threads}, {"here", true}});
    return done(answer);
  }
  CoreChoice core;
  if (record.kind != xenstore::Backend::kXen) {
    const auto chosen = choose_core_for(record, host, flag_field(wish, "alone"));
    if (!chosen) return done(chosen.error());
    core = *chosen;
    answer.update({{"core", core.core}, {"shared", core.shared}});
  }
  domain.migrate(*vcpu, host, core.core,
                 [answer, done = std::move(done)](const Result<Json>& moved) {
                   if (!moved) return done(moved.error());
                   Json all = answer;
                   all.update(*moved);
                   done(all);
                 });
}

void Commands::migrate(ClientId client, const User& user, const Json& message) {
  const auto record = managed_domain(user, message);
  if (!record) return refuse(client, record.error().message);
  if (Domain* domain = domains_.own(record->uuid))
    return move_vcpu(*domain, message, answer_to(client));
  // What would be refused at the home anyway.
  if (const auto vcpu = check_move(*record, message); !vcpu)
    return refuse(client, vcpu.error().message);
  ask_home(client, *record,
           {{"op", "migrate-request"},
            {"vcpu", number_or(message, "vcpu", 0)},
            {"host", text_or(message, "host", "")},
            {"alone", flag_field(message, "alone")}});
}

}  // namespace xenspan::daemon
