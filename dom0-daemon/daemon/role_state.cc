#include "dom0-daemon/daemon/role_state.h"

#include <cerrno>

#include "dom0-daemon/daemon/names.h"
#include "dsm-rdma/features.h"
#include "dsm-rdma/types.h"

namespace xenspan::daemon {
namespace {

Error bad(const char* what) {
  return Error{EBADMSG, std::string("a home's state with bad ") + what};
}

Json to_json(const RoleState::Number& number) {
  Json object{{"member", number.member.host},
              {"forgotten", number.member.forgotten},
              {"state", xenstore::to_word(number.member.state)},
              {"error", number.member.error},
              {"vcpus", number.member.vcpus},
              {"port", number.port},
              {"gone", number.gone},
              {"ended", number.ended},
              {"lost", number.lost},
              {"incarnation", number.incarnation}};
  if (!number.gone) object["host"] = to_json(number.host);
  return object;
}

Result<RoleState::Number> number_from(const Json& object) {
  RoleState::Number number;
  number.member.host = text_or(object, "member", "");
  const auto state = xenstore::from_word<xenstore::MemberState>(text_or(object, "state", ""));
  if (!is_host_name(number.member.host) || !state) return bad("members");
  number.member.state = *state;
  number.member.forgotten = flag_field(object, "forgotten");
  number.member.error = text_or(object, "error", "");
  number.member.vcpus = static_cast<int>(number_or(object, "vcpus", 0) & 0xffff);
  const std::uint64_t port = number_or(object, "port", 0);
  if (port > 65535) return bad("ports");
  number.port = static_cast<int>(port);
  number.gone = flag_field(object, "gone");
  number.ended = flag_field(object, "ended");
  number.lost = flag_field(object, "lost");
  number.incarnation = static_cast<std::uint32_t>(number_or(object, "incarnation", 0));
  number.host.name = number.member.host;
  if (number.gone) return number;
  const Json* host = object_field(object, "host");
  auto record = host == nullptr ? Result<HostRecord>(bad("hosts")) : host_record_from(*host);
  if (!record) return record.error();
  if (record->name != number.member.host) return bad("hosts");
  number.host = std::move(*record);
  return number;
}

bool is_number(const std::vector<RoleState::Number>& numbers, int index) {
  return index >= 0 && static_cast<std::size_t>(index) < numbers.size() &&
         !numbers[static_cast<std::size_t>(index)].gone;
}

bool is_secret(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// What refers to what.
Status check(const RoleState& state) {
  if (!is_number(state.numbers, state.home)) return bad("home");
  if (state.numbers[static_cast<std::size_t>(state.home)].member.host != state.record.home)
    return bad("home");
  if (state.engine_home != -1 && !is_number(state.numbers, state.engine_home))
    return bad("home of its pages");
  const auto numbered = [&](const std::string& host) {
    for (const RoleState::Number& number : state.numbers)
      if (!number.gone && number.member.host == host) return true;
    return false;
  };
  if (state.leaves == state.record.home || !numbered(state.leaves)) return bad("old home");
  for (const DomainVcpu& vcpu : state.record.vcpus)
    if (!numbered(vcpu.host)) return bad("vCPUs");
  if (!is_secret(state.secret)) return bad("secret");
  if (state.first_hosts == 0 || state.first_hosts > state.numbers.size()) return bad("first hosts");
  if (state.epoch == 0 || state.epoch > UINT32_MAX) return bad("epoch");
  if (const auto known = dsm::features_of(state.without); !known) return known.error();
  return {};
}

}  // namespace

Json to_json(const RoleState& state) {
  Json numbers = Json::array();
  for (const RoleState::Number& number : state.numbers) numbers.push_back(to_json(number));
  return {{"record", to_json(state.record)},
          {"user", to_json(state.user)},
          {"numbers", numbers},
          {"secret", state.secret},
          {"memory_promised", state.memory_promised},
          {"stats", state.stats},
          {"stats_host", state.stats_host},
          {"prefetch", state.prefetch},
          {"without", state.without},
          {"lost_after", state.lost_after},
          {"start_within", state.start_within},
          {"first_hosts", state.first_hosts},
          {"epoch", state.epoch},
          {"home", state.home},
          {"engine_home", state.engine_home},
          {"leaves", state.leaves},
          {"forget", state.forget}};
}

Result<RoleState> role_state_from(const Json& object, const std::string& own_host) {
  RoleState state;
  const Json* record = object_field(object, "record");
  const Json* user = object_field(object, "user");
  const Json* numbers = array_field(object, "numbers");
  if (record == nullptr || user == nullptr || numbers == nullptr ||
      numbers->size() > dsm::kMaxHosts)
    return bad("parts");
  auto known = domain_record_from(*record);
  if (!known) return known.error();
  state.record = std::move(*known);
  state.record.members.clear();
  auto person = user_from(*user, own_host);
  if (!person) return person.error();
  state.user = std::move(*person);
  for (const Json& each : *numbers) {
    auto number = each.is_object() ? number_from(each) : Result<RoleState::Number>(bad("members"));
    if (!number) return number.error();
    state.numbers.push_back(std::move(*number));
  }
  state.secret = text_or(object, "secret", "");
  state.memory_promised = flag_field(object, "memory_promised");
  state.stats = flag_field(object, "stats");
  state.stats_host = text_or(object, "stats_host", "");
  state.prefetch = std::min<std::uint64_t>(number_or(object, "prefetch", 0), dsm::kMostPrefetch);
  state.without = texts_field(object, "without").value_or(std::vector<std::string>{});
  state.lost_after = number_or(object, "lost_after", 3000);
  state.start_within = number_or(object, "start_within", 30000);
  state.first_hosts = number_or(object, "first_hosts", 0);
  state.epoch = number_or(object, "epoch", 0);
  state.home = static_cast<int>(std::min<std::uint64_t>(number_or(object, "home", 255), 255));
  const auto engine = number_field(object, "engine_home");
  state.engine_home = engine ? static_cast<int>(std::min<std::uint64_t>(*engine, 255)) : -1;
  state.leaves = text_or(object, "leaves", "");
  state.forget = flag_field(object, "forget");
  if (Status good = check(state); !good) return good.error();
  return state;
}

}  // namespace xenspan::daemon
