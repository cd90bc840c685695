// `xenspan run` waits here, and the home of its domain has moved to another host: signals go there,
// and how the program ends comes back (cluster.md).
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "dom0-daemon/daemon/commands.h"
#include "dom0-daemon/daemon/names.h"

namespace xenspan::daemon {
namespace {

constexpr int kOwnFailure = 125;
constexpr std::uint64_t kMaxSignal = 64;

}  // namespace

void Commands::steer_away(const std::string& uuid, int number) {
  if (const DomainRecord* record = domains_.record(uuid))
    cluster_.send(record->home, {{"op", "domain-signal"}, {"uuid", uuid}, {"signo", number}});
}

void Commands::close_away(const std::string& uuid) {
  const DomainRecord* record = domains_.record(uuid);
  if (record == nullptr || record->over()) return;
  if (Status sent = destroy_domain(DomainRecord(*record), "the end of its xenspan command"); !sent)
    log::warning("{}", sent.error().message);
}

// Its home was lost, or has said it all in the record.
void Commands::over_away(const DomainRecord& record) {
  if (domains_.own(record.uuid) != nullptr || record.home == config_.name) return;
  Domain::Outcome outcome;
  outcome.failed = record.state == xenstore::DomainState::kFailed;
  outcome.status = static_cast<int>(record.exit_status.value_or(kOwnFailure));
  outcome.message = record.error;
  tell_end(record.uuid, outcome);
}

bool Commands::handle_away(const std::string& host, const std::string& op, const Json& message) {
  if (op != "domain-signal" && op != "domain-outcome") return false;
  const std::string uuid = text_or(message, "uuid", "");
  if (op == "domain-signal") {
    const std::uint64_t number = number_or(message, "signo", 0);
    if (Domain* domain = domains_.own(uuid);
        domain != nullptr && number >= 1 && number <= kMaxSignal)
      domain->signal(static_cast<int>(number));
    return true;
  }
  const DomainRecord* record = domains_.record(uuid);
  if (record == nullptr || record->home != host) return true;
  Domain::Outcome outcome;
  outcome.status =
      static_cast<int>(std::min<std::uint64_t>(number_or(message, "status", 125), 255));
  outcome.signal = static_cast<int>(std::min<std::uint64_t>(number_or(message, "signal", 0), 64));
  outcome.failed = flag_field(message, "failed");
  outcome.message = text_or(message, "message", "");
  if (const Json* stats = object_field(message, "stats")) outcome.stats = *stats;
  tell_end(uuid, outcome);
  return true;
}

void Commands::end() {
  for (const auto& [uuid, client] : std::map<std::string, ClientId>(attached_)) {
    const DomainRecord* record = domains_.record(uuid);
    if (record == nullptr || record->home == config_.name) continue;
    Domain::Outcome outcome;
    outcome.failed = true;
    outcome.status = kOwnFailure;
    outcome.message = fmt::format(
        "host {}'s xenspand was stopped; domain {} goes on, and host {} is its home: see "
        "`xenspan list` there",
        config_.name, record->name, record->home);
    tell_end(uuid, outcome);
  }
}

}  // namespace xenspan::daemon
