// Commands that only a domain's home can carry out, wherever they were given: the request goes
// there, and the answer comes back (cluster.md). What each does is in commands_migrate.cc and
// commands_members.cc.
#include <fmt/format.h>

#include <cerrno>

#include "dom0-daemon/daemon/commands.h"

namespace xenspan::daemon {

// The words of both messages, the member that holds a good answer, and what is done at the home.
struct Commands::AtHome {
  const char* request;
  const char* reply;
  const char* result;
  void (Commands::*act)(Domain& domain, const Json& wish, Domain::MoveDone done);
};

Domain::MoveDone Commands::answer_to(ClientId client) {
  return [this, client](const Result<Json>& result) {
    if (result)
      answer(client, *result);
    else
      refuse(client, result.error().message);
  };
}

void Commands::ask_home(ClientId client, const DomainRecord& record, Json request) {
  const std::uint64_t id = next_stats_++;
  request["uuid"] = record.uuid;
  request["id"] = id;
  if (!cluster_.send(record.home, request))
    return refuse(client, fmt::format("host {}, the home of domain {}, is not connected: see "
                                      "`xenspan hosts`",
                                      record.home, record.name));
  remote_moves_[id] = {client, record.home};
}

bool Commands::handle_at_home(const std::string& host, const std::string& op, const Json& message) {
  static constexpr AtHome kinds[] = {
      {"migrate-request", "migrate-reply", "moved", &Commands::move_vcpu},
      {"member-request", "member-reply", "member", &Commands::change_member},
  };
  const std::uint64_t id = number_or(message, "id", 0);
  for (const AtHome& kind : kinds) {
    if (op == kind.request) {
      const auto reply = [this, host, id, kind](const Result<Json>& result) {
        Json sent{{"op", kind.reply}, {"id", id}};
        if (result)
          sent[kind.result] = *result;
        else
          sent["error"] = result.error().message;
        cluster_.send(host, sent);
      };
      Domain* domain = domains_.own(text_or(message, "uuid", ""));
      if (domain == nullptr)
        reply(Error{ESRCH, "the domain has ended"});
      else
        (this->*kind.act)(*domain, message, reply);
      return true;
    }
    if (op != kind.reply) continue;
    const auto found = remote_moves_.find(id);
    if (found == remote_moves_.end() || found->second.second != host) return true;
    const ClientId client = found->second.first;
    remote_moves_.erase(found);
    if (const Json* result = object_field(message, kind.result))
      answer(client, *result);
    else
      refuse(client, text_or(message, "error", "the home refused without a reason"));
    return true;
  }
  return false;
}

}  // namespace xenspan::daemon
