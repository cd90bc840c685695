#include "dom0-daemon/daemon/slice_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

// glibc 2.36 forgot to say that these are C functions.
extern "C" {
#include <sys/pidfd.h>
}

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/log.h"

namespace xenspan::daemon {
namespace {

constexpr std::size_t kMaxPacket = 1 << 20;
constexpr int kSocketBuffer = 4 << 20;
constexpr std::size_t kMaxFds = 250;
constexpr std::chrono::milliseconds kStopLimit{2000};

// Runs in the child between fork and exec: system calls only. Reports errno of a failure through
// `report`.
[[noreturn]] void become_worker(const char* program, int control, int report, pid_t parent) {
  setsid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(125);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int number : {SIGPIPE, SIGHUP, SIGINT, SIGTERM}) signal(number, SIG_DFL);
  // Above every fixed number first, so that none is overwritten.
  const int high_control = fcntl(control, F_DUPFD, 10);
  const int high_report = fcntl(report, F_DUPFD_CLOEXEC, 10);
  const int null = open("/dev/null", O_RDWR);
  dup2(null, 0);
  dup2(2, 1);
  dup2(high_control, 3);
  dup2(high_report, 4);
  fcntl(4, F_SETFD, FD_CLOEXEC);
  close_range(5, ~0u, 0);
  [[maybe_unused]] const int ignored = chdir("/");
  const char* const arguments[] = {program, "--control-fd", "3", nullptr};
  execv(program, const_cast<char* const*>(arguments));
  const int error = errno;
  [[maybe_unused]] const ssize_t written = write(4, &error, sizeof error);
  _exit(125);
}

}  // namespace

std::string slice_end_text(const SliceEnd& end) {
  return end.by_signal ? fmt::format("its slice ended with signal {}", end.number)
                       : fmt::format("its slice ended with status {}", end.number);
}

Result<std::unique_ptr<SliceProcess>> SliceProcess::start(EventLoop& loop,
                                                          const std::string& program,
                                                          OnEvent on_event, OnEnd on_end) {
  std::unique_ptr<SliceProcess> process(
      new SliceProcess(loop, std::move(on_event), std::move(on_end)));
  if (Status spawned = process->spawn(program); !spawned) return spawned.error();
  return process;
}

SliceProcess::~SliceProcess() {
  *alive_ = false;
  if (pid_ > 0 && !ended_) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

Status SliceProcess::spawn(const std::string& program) {
  std::array<int, 2> pair{};
  std::array<int, 2> report{};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) != 0)
    return system_error(errno, "cannot make a slice's socket");
  socket_.reset(pair[0]);
  UniqueFd worker_end(pair[1]);
  if (pipe2(report.data(), O_CLOEXEC) != 0) return system_error(errno, "cannot make a pipe");
  UniqueFd report_read(report[0]);
  UniqueFd report_write(report[1]);
  for (const int fd : pair)
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kSocketBuffer, sizeof kSocketBuffer);
  fcntl(socket_.get(), F_SETFL, O_NONBLOCK);

  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) return system_error(errno, "cannot start a slice", "too many processes?");
  if (pid_ == 0) become_worker(program.c_str(), worker_end.get(), report_write.get(), parent);
  worker_end.reset();
  report_write.reset();
  pidfd_.reset(pidfd_open(pid_, 0));
  int error = 0;
  // Ends with the exec, which closes the other end.
  if (read(report_read.get(), &error, sizeof error) == sizeof error)
    return system_error(error, "cannot start " + program, "set slice in xenspand.conf");
  if (!pidfd_) return system_error(errno, "cannot watch a slice's process");

  buffer_.resize(kMaxPacket + 1);
  readable_ =
      std::make_unique<FdWatch>(loop_, socket_.get(), EV_READ, [this](short) { receive(); });
  exit_ = std::make_unique<FdWatch>(loop_, pidfd_.get(), EV_READ, [this](short) { collect(); });
  return {};
}

Status SliceProcess::send(const Json& message, std::vector<UniqueFd> fds) {
  std::string text = to_line(message);
  if (text.size() > kMaxPacket)
    return Error{E2BIG, fmt::format("the program's arguments and environment take {} bytes, the "
                                    "limit is {}: shorten them",
                                    text.size(), kMaxPacket)};
  if (fds.size() > kMaxFds)
    return Error{EMFILE, fmt::format("the program would inherit {} open files, the limit is {}: "
                                     "close some",
                                     fds.size(), kMaxFds)};
  queue_.push_back({std::move(text), std::move(fds)});
  flush();
  return {};
}

void SliceProcess::flush() {
  while (!queue_.empty() && send_now(queue_.front())) queue_.pop_front();
  if (queue_.empty())
    writable_.reset();
  else if (!writable_)
    writable_ =
        std::make_unique<FdWatch>(loop_, socket_.get(), EV_WRITE, [this](short) { flush(); });
}

// False: the socket is full, try again later. A worker that is gone swallows packets; its end is
// reported elsewhere.
bool SliceProcess::send_now(const Packet& packet) {
  iovec part{const_cast<char*>(packet.text.data()), packet.text.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxFds * sizeof(int))> control{};
  if (!packet.fds.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(packet.fds.size() * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(packet.fds.size() * sizeof(int));
    for (std::size_t i = 0; i < packet.fds.size(); ++i) {
      const int fd = packet.fds[i].get();
      std::memcpy(CMSG_DATA(rights) + i * sizeof fd, &fd, sizeof fd);
    }
  }
  const ssize_t sent = sendmsg(socket_.get(), &header, MSG_NOSIGNAL);
  if (sent >= 0 || errno == EPIPE || errno == ECONNRESET) return true;
  if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS) return false;
  log::error("cannot tell slice {} what to do: {}", pid_, std::strerror(errno));
  return true;
}

void SliceProcess::receive() {
  const auto alive = alive_;
  while (*alive && !ended_) {
    const ssize_t got = recv(socket_.get(), buffer_.data(), buffer_.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      // The worker closed its end: it is about to exit, and collect() reports that.
      readable_.reset();
      return;
    }
    auto event = parse_object({buffer_.data(), static_cast<std::size_t>(got)});
    if (static_cast<std::size_t>(got) > kMaxPacket || !event) {
      log::error("slice {} sent a malformed packet and is killed", pid_);
      kill(pid_, SIGKILL);
      readable_.reset();
      return;
    }
    on_event_(std::move(*event));
  }
}

void SliceProcess::stop(const std::string& cause) {
  if (stopping_ || ended_) return;
  stopping_ = true;
  // A stop always fits.
  [[maybe_unused]] const Status sent = send({{"op", "stop"}, {"cause", cause}});
  kill_timer_ = std::make_unique<Timer>(loop_, kStopLimit, [this] {
    log::warning("slice {} did not end within 2 s and is killed", pid_);
    kill(pid_, SIGKILL);
  });
}

void SliceProcess::collect() {
  siginfo_t info{};
  if (waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED | WNOHANG) != 0 ||
      info.si_pid == 0)
    return;
  pid_t collected = pid_;
  pid_ = -1;
  exit_.reset();
  kill_timer_.reset();
  writable_.reset();
  const auto alive = alive_;
  // Its last words first.
  if (readable_) receive();
  if (!*alive) return;
  ended_ = true;
  readable_.reset();
  SliceEnd end;
  end.by_signal = info.si_code != CLD_EXITED;
  end.number = info.si_status;
  end.wanted = stopping_;
  log::debug("slice {}: {}", collected, slice_end_text(end));
  on_end_(end);
}

Result<std::string> find_slice_program(const std::string& configured) {
  std::vector<std::string> places;
  if (!configured.empty()) {
    places = {configured};
  } else {
    std::error_code ignored;
    const std::filesystem::path self =
        std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
    // In a build tree the worker is beside the daemon or in its own room.
    places = {self / "xenspan-slice", self / "slice" / "xenspan-slice", XENSPAN_SLICE_PROGRAM};
  }
  for (const std::string& place : places)
    if (access(place.c_str(), X_OK) == 0) return place;
  return Error{ENOENT, fmt::format("cannot find the worker program {}: install xenspan, or set "
                                   "slice in xenspand.conf",
                                   places.back())};
}

}  // namespace xenspan::daemon
