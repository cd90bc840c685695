#include "dom0-daemon/daemon/xen_peer_slices.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "base/log.h"
#include "dom0-daemon/daemon/names.h"

namespace xenspan::daemon {
namespace {

constexpr std::size_t kMostConfig = 256 << 10;
// What the home's domain has and a slice must not: its devices, and xl's acts at its end.
constexpr const char* kWithout[] = {"disk=[]",   "vif=[]", "vfb=[]",  "pci=[]",
                                    "usbdev=[]", "p9=[]",  "vtpm=[]", "channel=[]"};

Status write_file(const std::string& path, const std::string& text) {
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) return system_error(errno, "cannot make " + path, "is /run full?");
  if (write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return system_error(errno, "cannot write " + path, "is /run full?");
  return {};
}

}  // namespace

XenPeerSlices::XenPeerSlices(EventLoop& loop, const Config& config, Cluster& cluster, XenHost& xen)
    : loop_(loop), config_(config), cluster_(cluster), xen_(xen) {}

void XenPeerSlices::remove_leftovers() {
  std::error_code error;
  std::filesystem::create_directory(folder(), error);
  for (std::filesystem::directory_iterator each(folder(), error), last; !error && each != last;
       each.increment(error)) {
    const std::string uuid = each->path().stem().string(), path = each->path().string();
    const auto domain = is_uuid(uuid) ? find(uuid) : std::nullopt;
    if (!domain) {
      std::filesystem::remove(path, error);
      continue;
    }
    log::warning("domain {} is a slice that an earlier xenspand has left: it is ended", *domain);
    auto command = XlCommand::start(loop_, {"destroy", std::to_string(*domain)},
                                    [this, uuid, path](const Status& status) {
                                      if (!status) log::error("{}", status.error().message);
                                      std::error_code ignored;
                                      std::filesystem::remove(path, ignored);
                                      cleaning_.erase(uuid);
                                      --leftovers_;
                                    });
    if (!command) {
      log::error("{}", command.error().message);
      continue;
    }
    ++leftovers_;
    cleaning_[uuid] = std::move(*command);
  }
}

std::optional<unsigned> XenPeerSlices::find(const std::string& own_uuid) {
  const auto guests = xen_.guests();
  if (!guests) return std::nullopt;
  for (const XenGuest& each : *guests)
    if (each.uuid == own_uuid) return each.id;
  return std::nullopt;
}

std::optional<unsigned> XenPeerSlices::domain_of(const std::string& uuid,
                                                 const std::string& home) const {
  const auto found = slices_.find(uuid);
  if (found == slices_.end() || found->second.home != home || found->second.domain == 0)
    return std::nullopt;
  return found->second.domain;
}

bool XenPeerSlices::handle(const std::string& home, const std::string& op, const Json& message) {
  if (op != "xen-slice-make" && op != "xen-slice-end" && op != "xen-slice-pause") return false;
  const std::string uuid = text_or(message, "uuid", "");
  if (op == "xen-slice-make") {
    make(home, uuid, message);
  } else if (const auto found = slices_.find(uuid);
             found != slices_.end() && found->second.home == home) {
    if (op == "xen-slice-end")
      found->second.next = nullptr, end(uuid);
    else
      pause(found->second, flag_field(message, "paused"));
  }
  return true;
}

void XenPeerSlices::refuse(const std::string& home, const std::string& uuid,
                           const std::string& error) {
  log::warning("refused a slice of domain {} from host {}: {}", xenstore::encode_text(uuid), home,
               error);
  cluster_.send(home, {{"op", "xen-slice-refused"}, {"uuid", uuid}, {"error", error}});
}

void XenPeerSlices::make(const std::string& home, const std::string& uuid, const Json& message) {
  const std::string name = text_or(message, "name", ""), text = text_or(message, "config", "");
  if (!is_uuid(uuid) || name.empty() || name.find_first_of("\"\\\n/") != name.npos ||
      text.empty() || text.size() > kMostConfig)
    return refuse(home, uuid, "malformed request");
  if (const auto old = slices_.find(uuid);
      old != slices_.end() && old->second.ending && old->second.home == home) {
    old->second.next = message;
    return;
  }
  if (slices_.contains(uuid))
    return refuse(home, uuid, fmt::format("host {} has a slice of it already", config_.name));
  if (const std::string problem = xen_.facts().problem; !problem.empty())
    return refuse(home, uuid, fmt::format("host {}: {}", config_.name, problem));
  Slice slice;
  slice.home = home;
  slice.own_uuid = random_uuid();
  slice.file = folder() + "/" + slice.own_uuid + ".cfg";
  if (Status written = write_file(slice.file, text); !written)
    return refuse(home, uuid, fmt::format("host {}: {}", config_.name, written.error().message));
  // Later words win. No xl stays behind: this daemon watches the domain itself.
  std::vector<std::string> words = {"create",
                                    "-p",
                                    "-e",
                                    slice.file,
                                    fmt::format("name=\"{}-slice-{}\"", name, config_.name),
                                    fmt::format("uuid=\"{}\"", slice.own_uuid)};
  words.insert(words.end(), std::begin(kWithout), std::end(kWithout));
  auto command = XlCommand::start(loop_, std::move(words),
                                  [this, uuid](const Status& status) { made(uuid, status); });
  if (!command) {
    std::filesystem::remove(slice.file);
    return refuse(home, uuid, fmt::format("host {}: {}", config_.name, command.error().message));
  }
  slice.command = std::move(*command);
  slices_.emplace(uuid, std::move(slice));
}

void XenPeerSlices::made(const std::string& uuid, const Status& status) {
  const auto found = slices_.find(uuid);
  if (found == slices_.end()) return;
  Slice& slice = found->second;
  const auto domain = find(slice.own_uuid);
  // Its command is on the call stack.
  loop_.later([command = std::shared_ptr<XlCommand>(std::move(slice.command))] {});
  if (domain && status && !slice.ending) {
    slice.domain = *domain;
    log::info("domain {} is the slice of domain {} from host {}", *domain, uuid, slice.home);
    cluster_.send(slice.home, {{"op", "xen-slice-made"}, {"uuid", uuid}, {"domain", *domain}});
    return;
  }
  if (!slice.ending)
    refuse(slice.home, uuid,
           fmt::format("host {} cannot make a slice: {}: see /var/log/xen there", config_.name,
                       status ? "the domain has gone" : status.error().message));
  slice.domain = domain.value_or(0);
  slice.ending = false;
  end(uuid);
}

void XenPeerSlices::end(const std::string& uuid) {
  const auto found = slices_.find(uuid);
  if (found == slices_.end()) return;
  Slice& slice = found->second;
  if (slice.ending) return;
  slice.ending = true;
  if (slice.command) return;  // it is being made: made() goes on
  const auto over = [this, uuid](const Status& status) {
    if (!status) log::error("{}", status.error().message);
    const auto ended = slices_.find(uuid);
    if (ended == slices_.end()) return;
    std::error_code ignored;
    std::filesystem::remove(ended->second.file, ignored);
    loop_.later([command = std::shared_ptr<XlCommand>(std::move(ended->second.command))] {});
    const std::string home = ended->second.home;
    const Json next = std::move(ended->second.next);
    slices_.erase(ended);
    if (!next.is_null()) make(home, uuid, next);
  };
  if (slice.domain == 0 || !find(slice.own_uuid)) return over({});
  auto command = XlCommand::start(loop_, {"destroy", std::to_string(slice.domain)}, over);
  if (!command) return over(command.error());
  slice.command = std::move(*command);
}

void XenPeerSlices::pause(Slice& slice, bool paused) {
  if (slice.domain == 0 || slice.ending || slice.paused == paused) return;
  slice.paused = paused;
  if (Status done = paused ? xen_.pause(slice.domain) : xen_.unpause(slice.domain); !done)
    log::warning("{}", done.error().message);
}

void XenPeerSlices::home_lost(const std::string& home) {
  std::vector<std::string> uuids;
  for (const auto& [uuid, slice] : slices_)
    if (slice.home == home) uuids.push_back(uuid);
  for (const std::string& uuid : uuids) end(uuid);
}

// A vCPU here may be the one that powers the guest off.
void XenPeerSlices::look() {
  for (auto& [uuid, slice] : slices_) {
    if (slice.domain == 0 || slice.ending || slice.told_shutdown) continue;
    const auto guest = xen_.guest(slice.domain);
    if (guest && !guest->ended) continue;
    slice.told_shutdown = true;
    cluster_.send(slice.home, {{"op", "xen-slice-shutdown"},
                               {"uuid", uuid},
                               {"there", guest.ok()},
                               {"reason", guest ? guest->shutdown_reason : 0U}});
  }
}

void XenPeerSlices::end_all() {
  std::vector<std::string> uuids;
  for (const auto& [uuid, slice] : slices_) uuids.push_back(uuid);
  for (const std::string& uuid : uuids) end(uuid);
}

}  // namespace xenspan::daemon
