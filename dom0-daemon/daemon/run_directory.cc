#include "dom0-daemon/daemon/run_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/log.h"

namespace xenspan::daemon {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

// A daemon that was just killed may still be on its way out.
constexpr int kLockAttempts = 20;
constexpr milliseconds kLockPause{100};

std::string owner(const std::string& lock_path) {
  std::ifstream file(lock_path);
  std::string pid;
  std::getline(file, pid);
  return pid.empty() ? "unknown" : pid;
}

}  // namespace

RunDirectory::RunDirectory(const Config& config, UniqueFd lock)
    : path_(config.own_dir()),
      socket_(config.socket),
      link_(config.rundir == kRunRoot ? config.rundir + "/system" : ""),
      lock_(std::move(lock)) {}

Result<std::unique_ptr<RunDirectory>> RunDirectory::open(const Config& config) {
  const std::string path = config.own_dir();
  std::error_code error;
  fs::create_directories(path, error);
  if (error)
    return system_error(error.value(), "cannot make " + path,
                        "run xenspand as root, or set rundir");
  chmod(config.rundir.c_str(), 0755);
  chmod(path.c_str(), 0755);
  const std::string lock_path = path + "/lock";
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!lock) return system_error(errno, "cannot make " + lock_path, "run xenspand as root");
  for (int attempt = 1; flock(lock.get(), LOCK_EX | LOCK_NB) != 0; ++attempt) {
    if (attempt == kLockAttempts)
      return Error{EBUSY,
                   fmt::format("another xenspand (process {}) serves host {} in {}: stop it, "
                               "or use another name",
                               owner(lock_path), config.name, path)};
    std::this_thread::sleep_for(kLockPause);
  }
  const std::string pid = fmt::format("{}\n", getpid());
  if (ftruncate(lock.get(), 0) != 0 ||
      write(lock.get(), pid.data(), pid.size()) != static_cast<ssize_t>(pid.size()))
    return system_error(errno, "cannot write " + lock_path, "is /run full?");

  std::unique_ptr<RunDirectory> directory(new RunDirectory(config, std::move(lock)));
  directory->remove_contents();
  fs::create_directories(path + "/domain", error);
  if (error) return system_error(error.value(), "cannot make " + path + "/domain");
  chmod((path + "/domain").c_str(), 0755);
  if (!directory->link_.empty()) {
    fs::remove(directory->link_, error);
    fs::create_symlink(config.socket, directory->link_, error);
    if (error) log::warning("cannot make {}: {}", directory->link_, error.message());
  }
  return directory;
}

void RunDirectory::remove_contents() {
  std::error_code error;
  fs::remove_all(path_ + "/domain", error);
  if (error) log::warning("cannot remove {}/domain: {}", path_, error.message());
  fs::remove(socket_, error);
}

RunDirectory::~RunDirectory() {
  remove_contents();
  std::error_code error;
  if (!link_.empty() && fs::read_symlink(link_, error) == socket_) fs::remove(link_, error);
  // The lock file last: until then nobody else may begin.
  fs::remove_all(path_, error);
}

}  // namespace xenspan::daemon
