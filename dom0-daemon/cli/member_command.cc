#include "dom0-daemon/cli/member_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

#include "dom0-daemon/cli/failure.h"

namespace xenspan::cli {
namespace {

using daemon::array_field;
using daemon::number_or;
using daemon::object_field;
using daemon::text_or;
using std::chrono::milliseconds;

constexpr milliseconds kLook{300};

// "host c is joining, 0 vCPUs", or what is known yet.
std::string progress(const DaemonChoice& daemon, const MemberOptions& options) {
  const std::string none = fmt::format("host {}: waiting", options.host);
  auto client = Client::connect(daemon);
  if (!client) return none;
  const auto answer = client->ask({{"op", "list"}});
  const Json* domains = answer ? array_field(*answer, "domains") : nullptr;
  if (domains == nullptr) return none;
  for (const Json& domain : *domains) {
    if (text_or(domain, "name", "") != options.domain &&
        !text_or(domain, "uuid", "").starts_with(options.domain))
      continue;
    const Json* members = array_field(domain, "members");
    if (members == nullptr) continue;
    for (const Json& member : *members) {
      if (text_or(member, "host", "") != options.host) continue;
      const Json* counters = object_field(member, "counters");
      return fmt::format("host {} is {}: {} vCPUs, {} pages", options.host,
                         text_or(member, "state", "?"), number_or(member, "vcpus", 0),
                         counters == nullptr ? 0 : number_or(*counters, "pages", 0));
    }
  }
  return none;
}

}  // namespace

int change_member(const DaemonChoice& choice, const std::string& request,
                  const MemberOptions& options) {
  auto client = Client::connect(choice);
  if (!client) return fail(client.error());
  const Json message{
      {"op", "member"}, {"domain", options.domain}, {"host", options.host}, {"request", request}};
  if (Status sent = client->send(message); !sent) return fail(sent.error());
  const bool terminal = ::isatty(STDERR_FILENO) != 0;
  Result<Json> answer = Error{ETIMEDOUT, ""};
  while (!(answer = client->receive(kLook)) && answer.error().code == ETIMEDOUT)
    if (terminal) fmt::print(stderr, "\r\033[K{}", progress(choice, options));
  if (terminal) fmt::print(stderr, "\r\033[K");
  if (!answer) return fail(answer.error());
  if (!daemon::flag_field(*answer, "ok"))
    return fail({EIO, text_or(*answer, "error", "the daemon refused without a reason")});
  fmt::print("host {} is {} in {}\n", options.host, text_or(*answer, "state", "?"), options.domain);
  return 0;
}

}  // namespace xenspan::cli
