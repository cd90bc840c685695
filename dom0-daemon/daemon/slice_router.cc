#include "dom0-daemon/daemon/slice_router.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "dom0-daemon/daemon/bound_files.h"
#include "dom0-daemon/daemon/names.h"

namespace xenspan::daemon {
namespace {

Json event_message(const std::string& uuid, const Json& event) {
  return {{"op", "slice-event"}, {"uuid", uuid}, {"event", event}};
}

Json end_message(const std::string& uuid, const SliceEnd& end) {
  return {{"op", "slice-ended"},
          {"uuid", uuid},
          {"by_signal", end.by_signal},
          {"number", end.number},
          {"wanted", end.wanted}};
}

}  // namespace

SliceRouter::SliceRouter(const Config& config, Cluster& cluster, LocalSlices& slices,
                         FindDomain find)
    : config_(config), cluster_(cluster), slices_(slices), find_(std::move(find)) {}

Status SliceRouter::create_slice(const std::string& host, const std::string& uuid, const User& user,
                                 Json create, std::vector<UniqueFd> fds,
                                 std::uint64_t promised_memory) {
  create["lost_after"] = config_.lost_after.count();
  if (host == config_.name)
    return slices_.create(
        uuid, user, std::move(create), std::move(fds), promised_memory,
        [this, uuid](const Json& event) {
          if (Domain* domain = find_(uuid))
            domain->slice_event(config_.name, event);
          else
            peers_->tell_home(uuid, event_message(uuid, event));
        },
        [this, uuid](SliceEnd end) {
          if (Domain* domain = find_(uuid))
            domain->slice_ended(config_.name, end);
          else
            peers_->tell_home(uuid, end_message(uuid, end));
          peers_->ended(uuid);
        });
  const Json message{{"op", "slice-create"},
                     {"uuid", uuid},
                     {"promised_memory", promised_memory},
                     {"create", std::move(create)}};
  if (cluster_.send(host, message)) return {};
  return Error{EHOSTDOWN,
               fmt::format("lost host {} before the program started: see `xenspan hosts`", host)};
}

void SliceRouter::send_to_slice(const std::string& host, const std::string& uuid,
                                const Json& message) {
  // A host that is lost is reported by the cluster.
  if (host == config_.name)
    slices_.send(uuid, message);
  else
    cluster_.send(host, {{"op", "slice-message"}, {"uuid", uuid}, {"message", message}});
}

void SliceRouter::set_slice_cores(const std::string& host, const std::string& uuid,
                                  const std::vector<int>& cores) {
  if (host == config_.name)
    slices_.set_cores(uuid, cores);
  else
    cluster_.send(host, {{"op", "slice-cores"}, {"uuid", uuid}, {"cores", cores}});
}

void SliceRouter::stop_slice(const std::string& host, const std::string& uuid,
                             const std::string& cause) {
  if (host == config_.name)
    slices_.stop(uuid, cause);
  else
    cluster_.send(host, {{"op", "slice-stop"}, {"uuid", uuid}, {"cause", cause}});
}

std::vector<std::string> SliceRouter::bound_here(const std::string& uuid) const {
  return bound_files(slices_.pid_of(uuid));
}

void SliceRouter::name_heir(const std::string& host, const std::string& uuid,
                            const std::string& heir) {
  if (host != config_.name) {
    cluster_.send(host, {{"op", "slice-heir"}, {"uuid", uuid}, {"heir", heir}});
    return;
  }
  peers_->name_heir(uuid, heir);
  if (Domain* domain = find_(uuid)) domain->heir_known(host);
}

void SliceRouter::claim_slice(const std::string& host, const std::string& uuid) {
  if (host == config_.name)
    peers_->claim(uuid, host);
  else
    cluster_.send(host, {{"op", "slice-home"}, {"uuid", uuid}});
}

void SliceRouter::follow(const std::string& uuid, const std::string& heir) {
  peers_->claim(uuid, heir);
}

// Sent before the sender had heard that the home has moved.
void SliceRouter::pass_on(const std::string& host, const std::string& uuid, Json message) {
  if (message.contains("of")) return;  // once is enough
  message["of"] = host;
  peers_->tell_home(uuid, message);
}

bool SliceRouter::handle(const std::string& host, const std::string& op, const Json& message) {
  if (op != "slice-event" && op != "slice-ended" && op != "slice-refused" &&
      op != "slice-heir-known")
    return false;
  const std::string uuid = text_or(message, "uuid", "");
  Domain* domain = find_(uuid);
  if (domain == nullptr) {
    pass_on(host, uuid, message);
    return true;
  }
  const std::string of = text_or(message, "of", "");
  if (!of.empty()) {
    const auto& before = domain->record().former_homes;
    if (std::find(before.begin(), before.end(), host) == before.end()) return true;
    Json own = message;
    own.erase("of");
    return handle(of, op, own);
  }
  if (op == "slice-heir-known") {
    domain->heir_known(host);
  } else if (op == "slice-refused") {
    domain->slice_failed(host, text_or(message, "error", "host " + host + " refused"));
  } else if (op == "slice-ended") {
    SliceEnd end;
    end.by_signal = flag_field(message, "by_signal");
    end.number = static_cast<int>(number_or(message, "number", 0) & 0xff);
    end.wanted = flag_field(message, "wanted");
    domain->slice_ended(host, end);
  } else if (const Json* event = object_field(message, "event")) {
    domain->slice_event(host, *event);
  }
  return true;
}

PeerSlices::PeerSlices(const Config& config, Cluster& cluster, LocalSlices& slices)
    : config_(config), cluster_(cluster), slices_(slices) {}

bool PeerSlices::handle(const std::string& home, const std::string& op, const Json& message) {
  if (op != "slice-create" && op != "slice-message" && op != "slice-stop" && op != "slice-cores" &&
      op != "slice-heir" && op != "slice-home")
    return false;
  const std::string uuid = text_or(message, "uuid", "");
  if (op == "slice-create") {
    create(home, uuid, message);
    return true;
  }
  if (op == "slice-home") {
    claim(uuid, home);
    return true;
  }
  // Only the home of a slice commands it.
  const auto found = homes_.find(uuid);
  if (found == homes_.end() || found->second != home) return true;
  if (op == "slice-stop")
    slices_.stop(uuid, text_or(message, "cause", "stopped by its home"));
  else if (op == "slice-cores")
    set_cores(uuid, message);
  else if (op == "slice-heir")
    learn_heir(home, uuid, message);
  else if (const Json* inner = object_field(message, "message"))
    slices_.send(uuid, *inner);
  return true;
}

void PeerSlices::create(const std::string& home, const std::string& uuid, const Json& message) {
  const auto refuse = [&](const std::string& error) {
    log::warning("refused a slice of domain {} from host {}: {}", xenstore::encode_text(uuid), home,
                 error);
    cluster_.send(home, {{"op", "slice-refused"}, {"uuid", uuid}, {"error", error}});
  };
  const Json* create = object_field(message, "create");
  const Json* user_object = create == nullptr ? nullptr : object_field(*create, "user");
  if (!is_uuid(uuid) || user_object == nullptr || homes_.contains(uuid))
    return refuse("malformed request");
  // A slice under Xen is no user's program: root's daemon drives it, whatever users there are.
  User root;
  root.name = "root";
  const auto user =
      create->contains("xen") ? Result<User>(root) : user_from(*user_object, config_.name);
  if (!user) return refuse(user.error().message);
  Json own = *create;
  own["user"] = to_json(*user);
  // Where the slice listens is this host's own business.
  own["bind"] = config_.address;
  if (own.contains("xen")) {
    const auto domain = xen_domain_of_ ? xen_domain_of_(uuid, home) : std::nullopt;
    if (!domain || !own["xen"].is_object())
      return refuse(fmt::format("host {} has no domain for this slice", config_.name));
    own["xen"]["domain"] = *domain;
  }
  const Status created = slices_.create(
      uuid, *user, std::move(own), {}, number_or(message, "promised_memory", 0),
      [this, uuid](const Json& event) { tell_home(uuid, event_message(uuid, event)); },
      [this, uuid](SliceEnd end) {
        tell_home(uuid, end_message(uuid, end));
        ended(uuid);
      });
  if (!created) return refuse(created.error().message);
  homes_[uuid] = home;
  log::info("slice of domain {} for {} from host {} started", uuid, user->name, home);
}

void PeerSlices::learn_heir(const std::string& home, const std::string& uuid, const Json& message) {
  const std::string heir = text_or(message, "heir", "");
  if (!is_host_name(heir)) return;
  name_heir(uuid, heir);
  cluster_.send(home, {{"op", "slice-heir-known"}, {"uuid", uuid}});
}

void PeerSlices::claim(const std::string& uuid, const std::string& heir) {
  if (const auto of = homes_.find(uuid); of != homes_.end() && of->second == heir) return;
  const auto named = heirs_.find(uuid);
  if (named == heirs_.end() || named->second != heir || !slices_.contains(uuid)) {
    log::warning("host {} claims a slice of domain {} that is not its own", heir,
                 xenstore::encode_text(uuid));
    return;
  }
  heirs_.erase(named);
  homes_[uuid] = heir;
  log::info("slice of domain {}: host {} is its home now", uuid, heir);
}

bool PeerSlices::tell_home(const std::string& uuid, const Json& message) {
  const auto found = homes_.find(uuid);
  if (found == homes_.end()) return false;
  if (found->second == config_.name)
    at_home_(text_or(message, "op", ""), message);
  else
    cluster_.send(found->second, message);
  return true;
}

void PeerSlices::ended(const std::string& uuid) {
  homes_.erase(uuid);
  heirs_.erase(uuid);
}

void PeerSlices::set_cores(const std::string& uuid, const Json& message) {
  const auto numbers = numbers_field(message, "cores");
  std::vector<int> cores;
  for (const std::uint64_t core : numbers.value_or(std::vector<std::uint64_t>{}))
    if (core < kMaxCores) cores.push_back(static_cast<int>(core));
  if (numbers && cores.size() == numbers->size()) slices_.set_cores(uuid, cores);
}

void PeerSlices::home_lost(const std::string& home, const std::string& cause) {
  for (const auto& [uuid, of] : homes_)
    if (of == home) slices_.stop(uuid, fmt::format("lost host {}: {}", home, cause));
}

void PeerSlices::stop_all(const std::string& cause) {
  for (const auto& [uuid, home] : homes_) slices_.stop(uuid, cause);
}

}  // namespace xenspan::daemon
