#include "dom0-daemon/daemon/domain_record.h"

#include <algorithm>
#include <cerrno>

#include "dom0-daemon/daemon/names.h"
#include "dom0-daemon/daemon/placement.h"

namespace xenspan::daemon {
namespace {

using xenstore::Counters;
using xenstore::DomainState;
using xenstore::MemberState;

struct CounterName {
  const char* name;
  std::uint64_t Counters::*value;
};

constexpr CounterName kCounters[] = {
    {"threads", &Counters::threads},
    {"faults_read", &Counters::faults_read},
    {"faults_write", &Counters::faults_write},
    {"faults_upgrade", &Counters::faults_upgrade},
    {"first_touches", &Counters::first_touches},
    {"bytes_sent", &Counters::bytes_sent},
    {"bytes_received", &Counters::bytes_received},
    {"pages", &Counters::pages},
    {"cpu_us", &Counters::cpu_us},
};

constexpr std::size_t kMaxMembers = 1024;

Error bad(const char* what) {
  return Error{EBADMSG, std::string("domain record with a bad ") + what};
}

Status read_members(const Json& object, DomainRecord& record) {
  const Json* members = array_field(object, "members");
  if (members == nullptr || members->empty() || members->size() > kMaxMembers)
    return bad("list of members");
  for (const Json& each : *members) {
    DomainMember member;
    member.host = text_or(each, "host", "");
    const auto state = xenstore::from_word<MemberState>(text_or(each, "state", ""));
    const std::uint64_t vcpus = number_or(each, "vcpus", 0);
    if (!is_host_name(member.host) || !state || vcpus > kMaxVcpus) return bad("member");
    member.state = *state;
    member.vcpus = static_cast<int>(vcpus);
    member.error = text_or(each, "error", "");
    if (const Json* counters = object_field(each, "counters"))
      member.counters = counters_from(*counters);
    record.members.push_back(std::move(member));
  }
  return {};
}

Status read_vcpus(const Json& object, DomainRecord& record) {
  const Json* vcpus = array_field(object, "vcpus");
  if (vcpus == nullptr || vcpus->empty() || vcpus->size() > kMaxVcpus) return bad("list of vCPUs");
  for (const Json& each : *vcpus) {
    DomainVcpu vcpu;
    vcpu.host = text_or(each, "host", "");
    const std::uint64_t core = number_or(each, "core", 65536);
    if (!is_host_name(vcpu.host) || core > 65535) return bad("vCPU");
    vcpu.core = static_cast<int>(core);
    vcpu.threads = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(number_or(each, "threads", 0), UINT32_MAX));
    record.vcpus.push_back(std::move(vcpu));
  }
  return {};
}

}  // namespace

Json to_json(const Counters& counters) {
  Json object = Json::object();
  for (const CounterName& each : kCounters) object[each.name] = counters.*each.value;
  return object;
}

Counters counters_from(const Json& object) {
  Counters counters;
  for (const CounterName& each : kCounters) counters.*each.value = number_or(object, each.name, 0);
  return counters;
}

void DomainRecord::set_threads(const std::vector<std::uint64_t>& on_vcpus) {
  if (on_vcpus.size() != vcpus.size()) return;
  for (std::size_t i = 0; i < vcpus.size(); ++i)
    vcpus[i].threads = static_cast<std::uint32_t>(std::min<std::uint64_t>(on_vcpus[i], UINT32_MAX));
}

std::vector<std::uint32_t> DomainRecord::threads() const {
  std::vector<std::uint32_t> all;
  for (const DomainVcpu& vcpu : vcpus) all.push_back(vcpu.threads);
  return all;
}

Json to_json(const DomainRecord& record) {
  Json members = Json::array();
  for (const DomainMember& member : record.members) {
    if (member.forgotten) continue;
    members.push_back({{"host", member.host},
                       {"state", xenstore::to_word(member.state)},
                       {"vcpus", member.vcpus},
                       {"error", member.error},
                       {"counters", to_json(member.counters)}});
  }
  Json vcpus = Json::array();
  for (const DomainVcpu& vcpu : record.vcpus)
    vcpus.push_back({{"host", vcpu.host}, {"core", vcpu.core}, {"threads", vcpu.threads}});
  Json object{{"uuid", record.uuid},
              {"name", record.name},
              {"state", xenstore::to_word(record.state)},
              {"home", record.home},
              {"former_homes", record.former_homes},
              {"kind", xenstore::to_word(record.kind)},
              {"uid", record.uid},
              {"user", record.user},
              {"transport", xenstore::to_word(record.transport)},
              {"policy", xenstore::to_word(record.policy)},
              {"last_move", record.last_move},
              {"memory", record.memory},
              {"command", record.command},
              {"error", record.error},
              {"created", record.created},
              {"ended", record.ended},
              {"members", members},
              {"vcpus", vcpus}};
  if (record.exit_status) object["exit_status"] = *record.exit_status;
  return object;
}

Result<DomainRecord> domain_record_from(const Json& object) {
  DomainRecord record;
  record.uuid = text_or(object, "uuid", "");
  record.name = text_or(object, "name", "");
  record.home = text_or(object, "home", "");
  if (!is_uuid(record.uuid)) return bad("uuid");
  if (!is_domain_name(record.name)) return bad("name");
  if (!is_host_name(record.home)) return bad("home");
  record.former_homes = texts_field(object, "former_homes").value_or(std::vector<std::string>{});
  const auto state = xenstore::from_word<DomainState>(text_or(object, "state", ""));
  if (!state) return bad("state");
  record.state = *state;
  const std::uint64_t uid = number_or(object, "uid", UINT32_MAX);
  if (uid >= UINT32_MAX) return bad("uid");
  record.uid = static_cast<uid_t>(uid);
  record.user = text_or(object, "user", "");
  const auto transport =
      xenstore::from_word<xenstore::Transport>(text_or(object, "transport", "none"));
  if (!transport) return bad("transport");
  record.transport = *transport;
  const auto kind = xenstore::from_word<xenstore::Backend>(text_or(object, "kind", "usermode"));
  if (!kind) return bad("kind");
  record.kind = *kind;
  const auto policy = xenstore::from_word<xenstore::Policy>(text_or(object, "policy", "spread"));
  if (!policy) return bad("policy");
  record.policy = *policy;
  record.last_move = text_or(object, "last_move", "");
  record.memory = number_or(object, "memory", 0);
  record.command = text_or(object, "command", "");
  record.error = text_or(object, "error", "");
  record.created = number_or(object, "created", 0);
  record.ended = number_or(object, "ended", 0);
  if (const auto status = number_field(object, "exit_status")) {
    if (*status > 255) return bad("exit status");
    record.exit_status = static_cast<std::uint32_t>(*status);
  }
  if (Status read = read_members(object, record); !read) return read.error();
  if (Status read = read_vcpus(object, record); !read) return read.error();
  return record;
}

}  // namespace xenspan::daemon
