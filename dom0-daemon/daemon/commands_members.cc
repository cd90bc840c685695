// `xenspan add-host`, `drain` and `remove-host`: the request of xenspan-xenstore(5), written by the
// domain's home into its own xenstore, wherever the command was given. The answer comes when what
// was asked for has happened, or was refused.
#include <fmt/format.h>

#include <cerrno>

#include "dom0-daemon/daemon/commands.h"
#include "dom0-daemon/daemon/names.h"

namespace xenspan::daemon {

void Commands::change_member(Domain& domain, const Json& wish, Domain::MoveDone done) {
  const std::string host = text_or(wish, "host", "");
  const auto request = xenstore::from_word<xenstore::MemberRequest>(text_or(wish, "request", ""));
  if (!is_host_name(host))
    return done(Error{EINVAL, "that is no host's name: see `xenspan hosts`"});
  if (!request || *request == xenstore::MemberRequest::kNone)
    return done(Error{EINVAL, "a member's request is add, drain or remove"});
  const DomainRecord& record = domain.record();
  if (record.state != xenstore::DomainState::kRunning || domain.stopping())
    return done(
        Error{ESRCH, fmt::format("domain {} is not running: see `xenspan list -a`", record.name)});
  const std::string uuid = record.uuid;
  domain.await_member(host, std::move(done));
  if (Status written = domains_.write_member_request(uuid, host, *request); !written)
    domain.member_unwritten(host, written.error());
}

void Commands::member(ClientId client, const User& user, const Json& message) {
  const auto record = managed_domain(user, message);
  if (!record) return refuse(client, record.error().message);
  if (Domain* domain = domains_.own(record->uuid))
    return change_member(*domain, message, [this, client](const Result<Json>& changed) {
      if (changed)
        answer(client, *changed);
      else
        refuse(client, changed.error().message);
    });
  if (record->over())
    return refuse(client,
                  fmt::format("domain {} is not running: see `xenspan list -a`", record->name));
  const std::uint64_t id = next_stats_++;
  const Json request{{"op", "member-request"},
                     {"uuid", record->uuid},
                     {"id", id},
                     {"host", text_or(message, "host", "")},
                     {"request", text_or(message, "request", "")}};
  if (!cluster_.send(record->home, request))
    return refuse(client, fmt::format("host {}, the home of domain {}, is not connected: see "
                                      "`xenspan hosts`",
                                      record->home, record->name));
  remote_moves_[id] = {client, record->home};
}

bool Commands::handle_member(const std::string& host, const std::string& op, const Json& message) {
  const std::uint64_t id = number_or(message, "id", 0);
  if (op == "member-request") {
    const auto reply = [this, host, id](const Result<Json>& changed) {
      Json result{{"op", "member-reply"}, {"id", id}};
      if (changed)
        result["member"] = *changed;
      else
        result["error"] = changed.error().message;
      cluster_.send(host, result);
    };
    Domain* domain = domains_.own(text_or(message, "uuid", ""));
    if (domain == nullptr)
      reply(Error{ESRCH, "the domain has ended"});
    else
      change_member(*domain, message, reply);
    return true;
  }
  if (op != "member-reply") return false;
  const auto found = remote_moves_.find(id);
  if (found == remote_moves_.end() || found->second.second != host) return true;
  const ClientId client = found->second.first;
  remote_moves_.erase(found);
  if (const Json* changed = object_field(message, "member"))
    answer(client, *changed);
  else
    refuse(client, text_or(message, "error", "the home refused without a reason"));
  return true;
}

}  // namespace xenspan::daemon
