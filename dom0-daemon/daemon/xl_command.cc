#include "dom0-daemon/daemon/xl_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/log.h"
#include "xenstore-schema/values.h"

extern "C" {
#include <sys/pidfd.h>  // glibc 2.36 leaves this out
}

extern char** environ;

namespace xenspan::daemon {
namespace {

constexpr std::size_t kMostSaid = 16 << 10;

std::string last_line(const std::string& text) {
  const auto end = text.find_last_not_of(" \n");
  if (end == std::string::npos) return "it does not say why";
  const auto begin = text.find_last_of('\n', end);
  return xenstore::encode_text(text.substr(begin + 1, end - begin));
}

}  // namespace

Result<std::unique_ptr<XlCommand>> XlCommand::start(EventLoop& loop, std::vector<std::string> words,
                                                    OnEnd on_end) {
  std::unique_ptr<XlCommand> command(new XlCommand(loop, std::move(words), std::move(on_end)));
  if (Status spawned = command->spawn(); !spawned) return spawned.error();
  return command;
}

XlCommand::~XlCommand() = default;

Status XlCommand::spawn() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return system_error(errno, "cannot make a pipe");
  output_.reset(ends[0]);
  const UniqueFd write_end(ends[1]);
  fcntl(output_.get(), F_SETFL, O_NONBLOCK);
  std::vector<char*> arguments{const_cast<char*>("xl")};
  for (const std::string& word : words_) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, write_end.get(), 1);
  posix_spawn_file_actions_adddup2(&files, write_end.get(), 2);
  const int error = posix_spawnp(&pid_, "xl", &files, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) return system_error(error, "cannot start xl", "install xen-utils");
  pidfd_.reset(pidfd_open(pid_, 0));
  if (!pidfd_) return system_error(errno, "cannot watch xl");
  readable_ = std::make_unique<FdWatch>(loop_, output_.get(), EV_READ, [this](short) { read(); });
  exit_ = std::make_unique<FdWatch>(loop_, pidfd_.get(), EV_READ, [this](short) { collect(); });
  return {};
}

void XlCommand::read() {
  std::array<char, 4096> piece;
  for (;;) {
    const ssize_t got = ::read(output_.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return readable_.reset();
    if (said_.size() < kMostSaid) said_.append(piece.data(), static_cast<std::size_t>(got));
  }
}

void XlCommand::collect() {
  siginfo_t info{};
  if (waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED | WNOHANG) != 0 ||
      info.si_pid == 0)
    return;
  exit_.reset();
  if (readable_) read();
  readable_.reset();
  const bool good = info.si_code == CLD_EXITED && info.si_status == 0;
  log::debug("xl {}: status {}: {}", words_.front(), info.si_status, said_);
  const OnEnd on_end = std::move(on_end_);
  on_end(good ? Status()
              : Status(Error{EIO,
                             fmt::format("`xl {}` failed: {}", words_.front(), last_line(said_))}));
}

}  // namespace xenspan::daemon
