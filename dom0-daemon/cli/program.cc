#include "dom0-daemon/cli/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

// glibc 2.36 forgot to say that these are C functions.
extern "C" {
#include <sys/pidfd.h>
}

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/unique_fd.h"

extern char** environ;

namespace xenspan::cli {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTermLimit{5000};
constexpr milliseconds kPoll{20};

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> list;
  for (const std::string& word : words) list.push_back(const_cast<char*>(word.c_str()));
  list.push_back(nullptr);
  return list;
}

std::string read_all(int fd) {
  std::string text;
  char bytes[4096];
  for (ssize_t got; (got = read(fd, bytes, sizeof bytes)) > 0 || (got < 0 && errno == EINTR);)
    if (got > 0) text.append(bytes, static_cast<std::size_t>(got));
  return text;
}

std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  for (char& c : text)
    if (c == '\n') c = ' ';
  return text;
}

struct Launch {
  int space;
  int log;
  const char* pid_file;
  char* const* command;
  int report;
};

// Writes "PID STARTTIME" for the calling process.
bool write_own_pid_file(const char* path) {
  const std::string text = fmt::format("{} {}\n", getpid(), process_start_time(getpid()));
  const UniqueFd fd(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  return fd && write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// The child between fork and exec; this process has one thread, so library calls are safe.
[[noreturn]] void become_daemon(const Launch& launch) {
  setsid();
  const bool ready = setns(launch.space, CLONE_NEWNET) == 0 && write_own_pid_file(launch.pid_file);
  if (ready) {
    const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    dup2(launch.log, STDOUT_FILENO);
    dup2(launch.log, STDERR_FILENO);
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    execv(launch.command[0], launch.command);
  }
  const int error = errno;
  [[maybe_unused]] const ssize_t written = write(launch.report, &error, sizeof error);
  _exit(1);
}

}  // namespace

Status run_program(const std::vector<std::string>& command) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return system_error(errno, "cannot make a pipe");
  const UniqueFd output(ends[0]);
  UniqueFd input(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, input.get(), STDERR_FILENO);
  pid_t pid = 0;
  const int error =
      posix_spawnp(&pid, command[0].c_str(), &actions, nullptr, pointers(command).data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return system_error(error, "cannot run " + command[0], "install iproute2");
  input.reset();
  const std::string said = read_all(output.get());
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (status == 0) return {};
  std::string line;
  for (const std::string& word : command) line += (line.empty() ? "" : " ") + word;
  return Error{EIO, fmt::format("`{}` failed: {}", line, one_line(said))};
}

std::uint64_t process_start_time(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  // The second field is the program's name in parentheses, which may hold anything; proc(5) numbers
  // the rest from 3.
  const std::size_t end = text.rfind(')');
  if (end == std::string::npos) return 0;
  std::istringstream fields(text.substr(end + 1));
  std::string state;
  fields >> state;
  if (state == "Z" || state == "X") return 0;
  std::string word;
  for (int field = 4; field < 22; ++field) fields >> word;
  std::uint64_t start_time = 0;
  fields >> start_time;
  return start_time;
}

bool is_alive(const ProcessId& process) {
  return process.pid > 0 && process.start_time != 0 &&
         process_start_time(process.pid) == process.start_time;
}

Result<ProcessId> read_pid_file(const std::string& path) {
  std::ifstream file(path);
  ProcessId process;
  file >> process.pid >> process.start_time;
  if (!file) return Error{ENOENT, fmt::format("{} holds no process id", path)};
  return process;
}

Status start_in_namespace(const std::string& name, const std::vector<std::string>& command,
                          const std::string& log_file, const std::string& pid_file) {
  const UniqueFd space(open(("/run/netns/" + name).c_str(), O_RDONLY | O_CLOEXEC));
  if (!space) return system_error(errno, "cannot open the network namespace " + name);
  const UniqueFd log(open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!log) return system_error(errno, "cannot write " + log_file);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return system_error(errno, "cannot make a pipe");
  const UniqueFd result(ends[0]);
  UniqueFd report(ends[1]);
  const std::vector<char*> arguments = pointers(command);
  const Launch launch{space.get(), log.get(), pid_file.c_str(), arguments.data(), report.get()};
  const pid_t pid = fork();
  if (pid < 0) return system_error(errno, "cannot start a process");
  if (pid == 0) become_daemon(launch);
  report.reset();
  int error = 0;
  if (read(result.get(), &error, sizeof error) != sizeof error) return {};
  waitpid(pid, nullptr, 0);
  return system_error(error, "cannot start " + command[0] + " in namespace " + name);
}

void end_process(const ProcessId& process) {
  if (!is_alive(process)) return;
  // The pidfd keeps meaning this process; the start time is checked again in case the id had just
  // changed hands.
  const UniqueFd pidfd(pidfd_open(process.pid, 0));
  if (!pidfd || !is_alive(process)) return;
  pidfd_send_signal(pidfd.get(), SIGTERM, nullptr, 0);
  const auto deadline = std::chrono::steady_clock::now() + kTermLimit;
  for (bool killed = false; is_alive(process);) {
    // Ours when it was started by this very command.
    waitpid(process.pid, nullptr, WNOHANG);
    if (!killed && std::chrono::steady_clock::now() > deadline) {
      pidfd_send_signal(pidfd.get(), SIGKILL, nullptr, 0);
      killed = true;
    }
    std::this_thread::sleep_for(kPoll);
  }
}

Result<std::string> find_program(const std::string& name, const std::string& installed) {
  std::error_code error;
  const std::filesystem::path self =
      std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  for (const std::string& place :
       {(self / name).string(), (self.parent_path() / "sbin" / name).string(), installed})
    if (access(place.c_str(), X_OK) == 0) return place;
  return Error{ENOENT, fmt::format("cannot find {}: install xenspan whole", installed)};
}

}  // namespace xenspan::cli
