#include "dom0-daemon/daemon/local_slices.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "base/log.h"
#include "xenstore-schema/values.h"

namespace xenspan::daemon {
namespace {

// The cores that a create message gives to this host's vCPUs.
std::vector<int> own_cores(const Json& create) {
  std::vector<int> cores;
  // Under Xen they are Xen's processors, not those of this machine's Linux.
  if (create.contains("xen")) return cores;
  const std::uint64_t self = number_or(create, "self", 0);
  if (const Json* vcpus = array_field(create, "vcpus"))
    for (const Json& vcpu : *vcpus)
      if (number_field(vcpu, "host") == self)
        cores.push_back(static_cast<int>(number_or(vcpu, "core", 0)));
  return cores;
}

void remove_dir(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) log::warning("cannot remove {}: {}", path, error.message());
}

}  // namespace

LocalSlices::LocalSlices(EventLoop& loop, const Config& config, std::string slice_program)
    : loop_(loop), config_(config), program_(std::move(slice_program)) {}

Result<std::string> LocalSlices::make_rundir(const std::string& uuid, const User& user) const {
  const std::string path = config_.own_dir() + "/domain/" + uuid;
  if (mkdir(path.c_str(), 0700) != 0)
    return system_error(errno, "cannot make " + path, "restart xenspand");
  if (chown(path.c_str(), user.uid, user.gid) != 0) {
    const Error error = system_error(errno, "cannot give " + path + " to " + user.name);
    rmdir(path.c_str());
    return error;
  }
  return path;
}

Status LocalSlices::create(const std::string& uuid, const User& user, Json create,
                           std::vector<UniqueFd> fds, std::uint64_t promised_memory,
                           SliceProcess::OnEvent on_event, SliceProcess::OnEnd on_end) {
  if (contains(uuid))
    return Error{EEXIST,
                 fmt::format("domain {} has a slice on host {} already", uuid, config_.name)};
  Slice slice;
  slice.cores = own_cores(create);
  slice.memory = promised_memory;
  slice.wants_load = text_or(create, "policy", "") == xenstore::to_word(xenstore::Policy::kLoad);
  create.erase("policy");
  for (const int core : slice.cores)
    if (std::find(config_.cpus.begin(), config_.cpus.end(), core) == config_.cpus.end())
      return Error{EINVAL, fmt::format("core {} is not for vCPUs on host {}", core, config_.name)};
  if (promised_memory > 0 && promised_memory + memory_used() > config_.memory)
    return Error{ENOMEM, fmt::format("not enough memory on host {}: another domain took it: try "
                                     "again with less --memory",
                                     config_.name)};
  auto rundir = make_rundir(uuid, user);
  if (!rundir) return rundir.error();
  slice.rundir = *rundir;
  auto process = SliceProcess::start(
      loop_, program_,
      [this, uuid, on_event = std::move(on_event)](Json event) {
        if (watcher_ == nullptr || !watcher_->slice_event(uuid, event)) on_event(std::move(event));
      },
      [this, uuid, on_end = std::move(on_end)](SliceEnd end) {
        if (watcher_ != nullptr) watcher_->slice_ended(uuid);
        ended(uuid);
        on_end(end);
      });
  if (!process) {
    remove_dir(slice.rundir);
    return process.error();
  }
  create["op"] = "create";
  create["uuid"] = uuid;
  create["rundir"] = slice.rundir;
  // Which device it uses is this host's own business.
  create["rdma"] = to_json(config_.rdma);
  if (Status sent = (*process)->send(create, std::move(fds)); !sent) {
    remove_dir(slice.rundir);
    return sent;
  }
  slice.process = std::move(*process);
  slices_.emplace(uuid, std::move(slice));
  if (watcher_ != nullptr) watcher_->slice_created(uuid, create);
  return {};
}

void LocalSlices::ended(const std::string& uuid) {
  const auto found = slices_.find(uuid);
  if (found == slices_.end()) return;
  remove_dir(found->second.rundir);
  // The process object is on the call stack: it goes when that has returned.
  const std::shared_ptr<SliceProcess> process(std::move(found->second.process));
  slices_.erase(found);
  loop_.later([process] {});
}

void LocalSlices::send(const std::string& uuid, const Json& message) {
  const auto found = slices_.find(uuid);
  if (found == slices_.end()) return;
  if (watcher_ != nullptr) watcher_->slice_told(uuid, message);
  if (Status sent = found->second.process->send(message); !sent)
    log::error("domain {}: {}", uuid, sent.error().message);
}

void LocalSlices::set_cores(const std::string& uuid, std::vector<int> cores) {
  const auto found = slices_.find(uuid);
  if (found != slices_.end()) found->second.cores = std::move(cores);
}

void LocalSlices::stop(const std::string& uuid, const std::string& cause) {
  const auto found = slices_.find(uuid);
  if (found != slices_.end()) found->second.process->stop(cause);
}

std::vector<int> LocalSlices::core_use() const {
  std::vector<int> use;
  for (const int core : config_.cpus) {
    int count = 0;
    for (const auto& [uuid, slice] : slices_)
      count += static_cast<int>(std::count(slice.cores.begin(), slice.cores.end(), core));
    use.push_back(count);
  }
  return use;
}

std::uint64_t LocalSlices::memory_used() const {
  std::uint64_t used = 0;
  for (const auto& [uuid, slice] : slices_) used += slice.memory;
  return used;
}

std::vector<pid_t> LocalSlices::pids_for_load() const {
  std::vector<pid_t> pids;
  bool wanted = false;
  for (const auto& [uuid, slice] : slices_) {
    wanted = wanted || slice.wants_load;
    pids.push_back(slice.process->pid());
  }
  if (!wanted) pids.clear();
  return pids;
}

pid_t LocalSlices::pid_of(const std::string& uuid) const {
  const auto found = slices_.find(uuid);
  return found == slices_.end() ? -1 : found->second.process->pid();
}

}  // namespace xenspan::daemon
