#include "dom0-daemon/daemon/slice_router.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/log.h"
#include "dom0-daemon/daemon/bound_files.h"
#include "dom0-daemon/daemon/names.h"

namespace xenspan::daemon {

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
          if (Domain* domain = find_(uuid)) domain->slice_event(config_.name, event);
        },
        [this, uuid](SliceEnd end) {
          if (Domain* domain = find_(uuid)) domain->slice_ended(config_.name, end);
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

std::vector<std::string> SliceRouter::open_at_home(const std::string& uuid) const {
  return bound_files(slices_.pid_of(uuid));
}

bool SliceRouter::handle(const std::string& host, const std::string& op, const Json& message) {
  if (op != "slice-event" && op != "slice-ended" && op != "slice-refused") return false;
  Domain* domain = find_(text_or(message, "uuid", ""));
  if (domain == nullptr) return true;
  if (op == "slice-refused") {
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
  if (op != "slice-create" && op != "slice-message" && op != "slice-stop" && op != "slice-cores")
    return false;
  const std::string uuid = text_or(message, "uuid", "");
  if (op == "slice-create") {
    create(home, uuid, message);
    return true;
  }
  // Only the home of a slice commands it.
  const auto found = homes_.find(uuid);
  if (found == homes_.end() || found->second != home) return true;
  if (op == "slice-stop")
    slices_.stop(uuid, text_or(message, "cause", "stopped by its home"));
  else if (op == "slice-cores")
    set_cores(uuid, message);
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
      [this, home, uuid](const Json& event) {
        cluster_.send(home, {{"op", "slice-event"}, {"uuid", uuid}, {"event", event}});
      },
      [this, home, uuid](SliceEnd end) {
        homes_.erase(uuid);
        cluster_.send(home, {{"op", "slice-ended"},
                             {"uuid", uuid},
                             {"by_signal", end.by_signal},
                             {"number", end.number},
                             {"wanted", end.wanted}});
      });
  if (!created) return refuse(created.error().message);
  homes_[uuid] = home;
  log::info("slice of domain {} for {} from host {} started", uuid, user->name, home);
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
