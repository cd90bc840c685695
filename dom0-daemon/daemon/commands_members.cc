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
    return change_member(*domain, message, answer_to(client));
  if (record->over())
    return refuse(client,
                  fmt::format("domain {} is not running: see `xenspan list -a`", record->name));
  ask_home(client, *record,
           {{"op", "member-request"},
            {"host", text_or(message, "host", "")},
            {"request", text_or(message, "request", "")}});
}

}  // namespace xenspan::daemon
