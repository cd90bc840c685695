// A domain's home moves to another host: its part here goes to the daemon there (role_state.h).
#include <fmt/format.h>

#include <cerrno>

#include "base/log.h"
#include "dom0-daemon/daemon/domain_table.h"

namespace xenspan::daemon {
namespace {

constexpr std::chrono::milliseconds kTakeLimit{10000};

}  // namespace

// ---- at the old home ----

void DomainTable::give_away(Domain& domain, const std::string& heir, Json state,
                            std::function<void(Status done)> done) {
  const std::string uuid = domain.record().uuid;
  if (!cluster_.send(heir, {{"op", "domain-role"}, {"uuid", uuid}, {"state", std::move(state)}}))
    return done(Error{EHOSTDOWN, fmt::format("host {} is not connected", heir)});
  Giving& giving = giving_[uuid];
  giving.heir = heir;
  giving.done = std::move(done);
  giving.limit = std::make_unique<Timer>(loop_, kTakeLimit, [this, uuid, heir] {
    role_answered(heir, {{"uuid", uuid}, {"error", "no answer: see its xenspand's log"}});
  });
}

void DomainTable::role_answered(const std::string& from, const Json& message) {
  const auto found = giving_.find(text_or(message, "uuid", ""));
  if (found == giving_.end() || found->second.heir != from) return;
  // Its timer may be what calls.
  const auto giving = std::make_shared<Giving>(std::move(found->second));
  giving_.erase(found);
  loop_.later([giving] {});
  const std::string error = text_or(message, "error", "");
  if (error.empty()) return giving->done({});
  giving->done(Error{EIO, fmt::format("host {} does not take the home's role: {}", from, error)});
}

void DomainTable::given_away(Domain& domain, const std::string& heir,
                             std::vector<std::pair<std::string, Domain::MoveDone>> waits) {
  const std::string uuid = domain.record().uuid;
  const DomainRecord record = domain.record();
  for (auto& [host, done] : waits) waits_.push_back({uuid, host, std::move(done)});
  const auto found = own_.find(uuid);
  // The domain is on the call stack: it goes when that has returned.
  const std::shared_ptr<Domain> given(std::move(found->second));
  own_.erase(found);
  others_[uuid] = record;
  links_.follow(uuid, heir);
  loop_.later([given] {});
  log::info("domain {} ({}): its home is host {} now", record.name, uuid, heir);
}

// Commands of here that wait for a member, by what its new home tells.
void DomainTable::settle_waits(const DomainRecord& record) {
  std::vector<Wait> over;
  for (auto each = waits_.begin(); each != waits_.end();) {
    const DomainMember* member = nullptr;
    for (const DomainMember& known : record.members)
      if (known.host == each->host) member = &known;
    const bool leaves = member != nullptr && member->error.empty() &&
                        member->state == xenstore::MemberState::kDraining;
    if (each->uuid != record.uuid || (leaves && !record.over())) {
      ++each;
      continue;
    }
    if (record.over())
      each->done(Error{ESRCH, fmt::format("domain {} has ended", record.name)});
    else if (member != nullptr && !member->error.empty())
      each->done(Error{EIO, member->error});
    else
      each->done(Json{{"domain", record.uuid},
                      {"host", each->host},
                      {"state", member == nullptr ? "removed" : xenstore::to_word(member->state)}});
    each = waits_.erase(each);
  }
}

// ---- at the new home ----

Status DomainTable::may_take_role(const std::string& from, const RoleState& state) const {
  const auto known = others_.find(state.record.uuid);
  if (known == others_.end() || known->second.home != from || known->second.over() ||
      own_.contains(state.record.uuid))
    return Error{
        EPERM, fmt::format("host {} is not the home of a running domain of this uuid here", from)};
  if (state.record.home != config_.name || state.leaves != from)
    return Error{EBADMSG, "the role is for another host"};
  return {};
}

void DomainTable::take_role(const std::string& from, const Json& message) {
  const Json* object = object_field(message, "state");
  auto state = object == nullptr ? Result<RoleState>(Error{EBADMSG, "no state"})
                                 : role_state_from(*object, config_.name);
  Status may = state ? may_take_role(from, *state) : Status(state.error());
  Json answer{{"op", "domain-role-taken"}, {"uuid", text_or(message, "uuid", "")}};
  if (!may) {
    log::warning("host {} offers the role of a domain's home, refused: {}", from,
                 may.error().message);
    answer["error"] = may.error().message;
    cluster_.send(from, answer);
    return;
  }
  const std::string uuid = state->record.uuid;
  auto domain = std::make_unique<Domain>(loop_, links_, *this, *state);
  Domain& taken = *domain;
  others_.erase(uuid);
  own_.emplace(uuid, std::move(domain));
  cluster_.send(from, answer);
  taken.take_role();
}

}  // namespace xenspan::daemon
