#include "tests/bench/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace xenspan::bench {
namespace {

constexpr int kPatienceMs = 120'000;
constexpr int kEndingMs = 5'000;  // for a program that was asked to end
constexpr int kPauseMs = 20;

[[noreturn]] void become(const std::vector<std::string>& argv, const std::vector<int>& cores,
                         int input, int output) {
  ::dup2(input, STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  if (!cores.empty()) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int core : cores) CPU_SET(static_cast<std::size_t>(core), &set);
    if (::sched_setaffinity(0, sizeof set, &set) != 0) _exit(126);
  }
  std::vector<char*> words;
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  ::execvp(words[0], words.data());
  _exit(127);
}

}  // namespace

Result<Process> Process::start(const std::vector<std::string>& argv,
                               const std::vector<int>& cores) {
  int in[2], out[2];
  if (::pipe2(in, O_CLOEXEC) != 0) return system_error(errno, "cannot make a pipe");
  UniqueFd child_input(in[0]), input(in[1]);
  if (::pipe2(out, O_CLOEXEC) != 0) return system_error(errno, "cannot make a pipe");
  UniqueFd output(out[0]), child_output(out[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return system_error(errno, "cannot start " + argv[0]);
  if (pid == 0) become(argv, cores, child_input.get(), child_output.get());
  return Process(argv[0], pid, std::move(input), std::move(output));
}

Process::Process(std::string name, pid_t pid, UniqueFd input, UniqueFd output)
    : name_(std::move(name)), pid_(pid), input_(std::move(input)), output_(std::move(output)) {}

Process::Process(Process&& other) noexcept
    : name_(std::move(other.name_)),
      pid_(std::exchange(other.pid_, -1)),
      input_(std::move(other.input_)),
      output_(std::move(other.output_)),
      buffer_(std::move(other.buffer_)) {}

Process::~Process() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGTERM);
  for (int waited = 0; waited < kEndingMs; waited += kPauseMs) {
    if (::waitpid(pid_, nullptr, WNOHANG) == pid_) return;
    ::usleep(kPauseMs * 1000);
  }
  ::kill(pid_, SIGKILL);
  collect();
}

Status Process::write_line(const std::string& line) {
  const std::string text = line + "\n";
  if (::write(input_.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return system_error(errno, "cannot write to " + name_);
  }
  return {};
}

bool Process::fill() {
  pollfd ready{output_.get(), POLLIN, 0};
  if (::poll(&ready, 1, kPatienceMs) <= 0) return false;
  char bytes[16384];
  const ssize_t got = ::read(output_.get(), bytes, sizeof bytes);
  if (got <= 0) return false;
  buffer_.append(bytes, static_cast<std::size_t>(got));
  return true;
}

Result<std::string> Process::read_line() {
  std::size_t end;
  while ((end = buffer_.find('\n')) == std::string::npos) {
    if (!fill()) return Error{0, name_ + " ended or went silent before it answered"};
  }
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  return line;
}

int Process::collect() {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return status;
}

Process::End Process::finish() {
  input_.reset();
  while (fill()) {
  }
  const int status = collect();
  const int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return End{code, std::move(buffer_)};
}

}  // namespace xenspan::bench
