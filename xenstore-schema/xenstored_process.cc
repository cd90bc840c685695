#include "xenstore-schema/xenstored_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

namespace xenspan::xenstore {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kTermWaitMs = 2000;
constexpr int kPollMs = 5;
constexpr size_t kMaxSocketPath = sizeof(sockaddr_un::sun_path) - 1;
// What names an installed noxen library, or another than the installed one.
constexpr const char* kLibraryVariable = "XENSPAN_NOXEN_LIBRARY";
constexpr const char* kLibraryFile = "libxenspan-noxen.so";

#ifndef XENSPAN_NOXEN_LIBRARY
#define XENSPAN_NOXEN_LIBRARY "/usr/lib/xenspan/libxenspan-noxen.so"
#endif

std::string socket_in(const std::string& run_dir) { return run_dir + "/socket"; }
std::string pid_file_in(const std::string& run_dir) { return run_dir + "/xenstored.pid"; }
std::string log_file_in(const std::string& run_dir) { return run_dir + "/xenstored.log"; }

int left_until(Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::max<long>(left, 0));
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string last_line(const std::string& path) {
  std::ifstream file(path);
  std::string last;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) last = line;
  }
  return last;
}

// The directory, locked. An earlier instance that is just being killed gets until deadline to
// vanish.
Result<UniqueFd> lock_directory(const std::string& path, Clock::time_point deadline) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error)
    return system_error(error.value(), fmt::format("cannot make {}", path),
                        "run as root, or choose another");
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return system_error(errno, fmt::format("cannot open {}", path));
  while (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR)
      return system_error(errno, fmt::format("cannot lock {}", path));
    if (left_until(deadline) == 0) {
      return Error{
          EBUSY, fmt::format(
                     "a xenstored (process {}) already runs in {}: stop the xenspand it belongs to",
                     first_line(pid_file_in(path)), path)};
    }
    poll(nullptr, 0, kPollMs);
  }
  return fd;
}

// The header of a xenstore message (xen/include/public/io/xs_wire.h).
struct MessageHeader {
  uint32_t type;
  uint32_t request;
  uint32_t transaction;
  uint32_t length;
};
constexpr uint32_t kListChildren = 1;  // XS_DIRECTORY

UniqueFd connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd && connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    fd.reset();
  return fd;
}

// Asks for the children of "/" and waits for an answer's header. Not through libxenstore, which has
// no time-out.
bool answers(const std::string& socket_path, Clock::time_point deadline) {
  const UniqueFd fd = connect_to(socket_path);
  if (!fd) return false;
  struct {
    MessageHeader header{kListChildren, 0, 0, 2};
    char path[2] = {'/', '\0'};
  } question;
  constexpr size_t kLength = sizeof(MessageHeader) + 2;
  if (send(fd.get(), &question, kLength, MSG_NOSIGNAL) != static_cast<ssize_t>(kLength))
    return false;
  pollfd wait{fd.get(), POLLIN, 0};
  if (poll(&wait, 1, left_until(deadline)) != 1) return false;
  MessageHeader answer{};
  return recv(fd.get(), &answer, sizeof answer, 0) == sizeof answer && answer.type == kListChildren;
}

// What the new process does between fork and exec: async-signal-safe calls only, as other threads
// may exist.
struct Launch {
  const char* binary;
  char* const* arguments;
  char* const* environment;
  pid_t parent;
  int lock;
  int log;
  int report;  // gets errno when exec fails
};

[[noreturn]] void run_xenstored(const Launch& launch) {
  // Ours to end: a xenspand that is killed must not leave a xenstored that holds the directory.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != launch.parent) _exit(1);
  setsid();  // a terminal's Ctrl-C is xenspand's to handle
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGTERM, SIG_DFL);
  signal(SIGHUP, SIG_DFL);
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  dup2(null, STDIN_FILENO);
  dup2(launch.log, STDOUT_FILENO);
  dup2(launch.log, STDERR_FILENO);
  close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
  fcntl(launch.lock, F_SETFD, 0);  // the directory stays locked for as long as xenstored lives
  execve(launch.binary, launch.arguments, launch.environment);
  const int code = errno;
  [[maybe_unused]] const ssize_t written = write(launch.report, &code, sizeof code);
  _exit(127);
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> list;
  for (std::string& text : strings) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

std::string reason_of(int status) {
  if (WIFSIGNALED(status)) return fmt::format("was ended by signal {}", WTERMSIG(status));
  return fmt::format("ended with status {}", WEXITSTATUS(status));
}

Status check_options(const XenstoredOptions& options, const std::string& library) {
  if (options.run_dir.empty() || options.run_dir[0] != '/') {
    return Error{EINVAL, fmt::format("xenstored needs an absolute directory, and '{}' is none",
                                     options.run_dir)};
  }
  if (socket_in(options.run_dir).size() > kMaxSocketPath) {
    return Error{
        ENAMETOOLONG,
        fmt::format("{} is too long for a socket: use a directory of at most {} characters",
                    options.run_dir, kMaxSocketPath - std::strlen("/socket"))};
  }
  if (library.find_first_of(" :") != std::string::npos) {
    return Error{
        EINVAL,
        fmt::format("{} cannot be preloaded: its path must have no space and no colon", library)};
  }
  return {};
}

}  // namespace

Result<std::string> find_xenstored() {
  std::vector<std::string> found;
  glob_t matches{};
  if (glob("/usr/lib/xen-*/bin/xenstored", 0, nullptr, &matches) == 0) {
    found.assign(matches.gl_pathv, matches.gl_pathv + matches.gl_pathc);
  }
  globfree(&matches);
  std::sort(found.begin(), found.end(), [](const std::string& a, const std::string& b) {
    return strverscmp(a.c_str(), b.c_str()) > 0;
  });
  for (const std::string& path : found) {
    if (access(path.c_str(), X_OK) == 0) return path;
  }
  return Error{
      ENOENT,
      "there is no /usr/lib/xen-*/bin/xenstored: install it with `apt-get install xen-utils-4.17`"};
}

Result<std::string> find_noxen_library() {
  std::vector<std::string> candidates;
  if (const char* named = std::getenv(kLibraryVariable)) return std::string(named);
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    // BUILD/dom0-daemon/xenspand and BUILD/tests/unit/x: never true of an installed program.
    const fs::path folder = program.parent_path();
    candidates.push_back(folder.parent_path() / "xenstore-schema" / kLibraryFile);
    candidates.push_back(folder.parent_path().parent_path() / "xenstore-schema" / kLibraryFile);
  }
  candidates.push_back(XENSPAN_NOXEN_LIBRARY);
  for (const std::string& path : candidates) {
    if (access(path.c_str(), R_OK) == 0) return path;
  }
  return Error{
      ENOENT,
      fmt::format("cannot find {}, which xenstored needs on a machine without Xen: run `make "
                  "install`, or set {}",
                  candidates.back(), kLibraryVariable)};
}

bool XenstoredProcess::on_xen() {
  return first_line("/proc/xen/capabilities").find("control_d") != std::string::npos;
}

Result<std::unique_ptr<XenstoredProcess>> XenstoredProcess::start(const XenstoredOptions& options) {
  std::unique_ptr<XenstoredProcess> process(new XenstoredProcess);
  if (on_xen()) return process;
  const auto binary = options.binary.empty() ? find_xenstored() : options.binary;
  if (!binary) return binary.error();
  const auto library = options.library.empty() ? find_noxen_library() : options.library;
  if (!library) return library.error();
  if (Status status = check_options(options, *library); !status) return status.error();
  // The loader would only warn, and xenstored would fail without saying why.
  if (access(library->c_str(), R_OK) != 0) {
    return system_error(errno, fmt::format("cannot read {}", *library), "run `make install`");
  }

  auto lock = lock_directory(options.run_dir, Clock::now() + options.timeout);
  if (!lock) return lock.error();
  process->lock_ = std::move(*lock);
  process->run_dir_ = options.run_dir;
  process->socket_path_ = socket_in(options.run_dir);
  // Left by an instance that was killed; the lock says that nobody uses them.
  unlink(process->socket_path_.c_str());
  unlink(pid_file_in(options.run_dir).c_str());
  if (Status status = process->launch(*binary, *library); !status) return status.error();
  if (Status status = process->wait_until_it_answers(options.timeout); !status)
    return status.error();
  return process;
}

Status XenstoredProcess::launch(const std::string& binary, const std::string& library) {
  const std::string log_file = log_file_in(run_dir_);
  const UniqueFd log(
      open(log_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
  if (!log) return system_error(errno, fmt::format("cannot write {}", log_file));
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return system_error(errno, "cannot make a pipe");
  const UniqueFd result(ends[0]);
  UniqueFd report(ends[1]);

  std::vector<std::string> argument_text{binary, "--no-fork", "--pid-file", pid_file_in(run_dir_)};
  // Both names of the directory: 4.17 keeps its nodes in memory, older ones in a file in the
  // second.
  std::vector<std::string> environment_text{
      "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LD_PRELOAD=" + library, "XENSTORED_RUNDIR=" + run_dir_,
      "XENSTORED_ROOTDIR=" + run_dir_, "XENSTORED_PATH=" + socket_path_};
  const std::vector<char*> arguments = pointers(argument_text);
  const std::vector<char*> environment = pointers(environment_text);
  const Launch launch{binary.c_str(), arguments.data(), environment.data(), getpid(),
                      lock_.get(),    log.get(),        report.get()};
  const pid_t pid = fork();
  if (pid < 0) return system_error(errno, "cannot start a process for xenstored");
  if (pid == 0) run_xenstored(launch);
  pid_ = pid;
  report.reset();
  int code = 0;
  if (read(result.get(), &code, sizeof code) == sizeof code) {
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
    return system_error(code, fmt::format("cannot execute {}", binary),
                        "is xen-utils-4.17 installed whole?");
  }
  pidfd_.reset(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
  if (!pidfd_) return system_error(errno, "cannot watch xenstored's process");
  return {};
}

Status XenstoredProcess::wait_until_it_answers(milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  while (!answers(socket_path_, deadline)) {
    if (wait_for_end(kPollMs)) return ended_early();
    if (left_until(deadline) == 0) {
      return Error{ETIMEDOUT, fmt::format("xenstored in {} did not answer for {} ms: see {}",
                                          run_dir_, timeout.count(), log_file_in(run_dir_))};
    }
  }
  return {};
}

Error XenstoredProcess::ended_early() const {
  siginfo_t info{};
  int status = 0;
  // Looks without reaping: stop() does that.
  if (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT | WNOHANG) == 0) {
    status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
  }
  const std::string said = last_line(log_file_in(run_dir_));
  return Error{ECHILD,
               fmt::format("xenstored in {} {} before it answered: {}", run_dir_, reason_of(status),
                           said.empty() ? "the system log may say why" : said)};
}

bool XenstoredProcess::wait_for_end(int milliseconds) {
  pollfd wait{pidfd_.get(), POLLIN, 0};
  return poll(&wait, 1, milliseconds) == 1;
}

void XenstoredProcess::stop() {
  if (pid_ == 0) return;
  kill(pid_, SIGTERM);
  if (!pidfd_ || !wait_for_end(kTermWaitMs)) kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = 0;
  unlink(socket_path_.c_str());
  unlink(pid_file_in(run_dir_).c_str());
  lock_.reset();
}

XenstoredProcess::~XenstoredProcess() { stop(); }

}  // namespace xenspan::xenstore
