#include "dom0-daemon/cli/run_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>

#include "base/log.h"
#include "dom0-daemon/daemon/names.h"

extern char** environ;

namespace xenspan::cli {
namespace {

using daemon::number_or;
using daemon::text_or;

// What a person or another program may want the guest to know.
constexpr int kForwarded[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGUSR1, SIGUSR2,
                              SIGALRM, SIGTERM, SIGCONT, SIGTSTP, SIGWINCH};

// A line on a terminal that says what is going on, gone when it is over.
class Progress {
 public:
  ~Progress() { erase(); }
  void show(const std::string& text) {
    if (!isatty(STDERR_FILENO)) return;
    shown_ = true;
    fmt::print(stderr, "\r\033[K{}", text);
  }
  void erase() {
    if (shown_) fmt::print(stderr, "\r\033[K");
    shown_ = false;
  }

 private:
  bool shown_ = false;
};

std::vector<std::string> environment_of(const RunOptions& options) {
  std::vector<std::string> environment;
  const auto name_of = [](const std::string& entry) { return entry.substr(0, entry.find('=')); };
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    bool replaced = false;
    for (const std::string& other : options.environment)
      replaced = replaced || name_of(other) == name_of(text);
    if (replaced) continue;
    if (daemon::is_utf8(text))
      environment.push_back(text);
    else
      log::warning("the environment variable {} is not UTF-8 and is left out",
                   daemon::is_utf8(name_of(text)) ? name_of(text) : "with a strange name");
  }
  environment.insert(environment.end(), options.environment.begin(), options.environment.end());
  return environment;
}

Result<Json> request_of(const RunOptions& options) {
  for (std::size_t i = 0; i < options.command.size(); ++i)
    if (!daemon::is_utf8(options.command[i]))
      return Error{EILSEQ, fmt::format("argument {} of the program is not UTF-8: xenspan cannot "
                                       "pass it on",
                                       i)};
  std::error_code error;
  const std::string here =
      options.directory.empty() ? std::filesystem::current_path(error).string() : options.directory;
  if (error)
    return system_error(error.value(), "cannot tell the current directory", "cd elsewhere");
  const mode_t mask = umask(0);
  umask(mask);
  return Json{{"op", "run"},
              {"name", options.name},
              {"vcpus", options.vcpus},
              {"memory", options.memory},
              {"prefetch", options.prefetch},
              {"without", options.without},
              {"transport", options.transport},
              {"policy", options.policy},
              {"hosts", options.hosts},
              {"stats", options.stats},
              {"program", options.command.front()},
              {"argv", options.command},
              {"env", environment_of(options)},
              {"cwd", here},
              {"umask", mask},
              {"fds", options.fd_numbers}};
}

std::string joined(const Json& texts) {
  std::string list;
  for (const Json& each : texts)
    if (each.is_string()) list += (list.empty() ? "" : ", ") + each.get<std::string>();
  return list;
}

void write_stats(const RunOptions& options, const Json& stats) {
  const std::string text = stats.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  if (options.stats_file.empty()) {
    fmt::print(stderr, "{}", text);
    return;
  }
  std::ofstream file(options.stats_file);
  file << text;
  file.close();
  if (!file)
    log::error("cannot write the statistics to {}: choose another file", options.stats_file);
}

class Run {
 public:
  Run(Client client, const RunOptions& options, Json* started)
      : client_(std::move(client)), options_(options), started_(started) {}

  int go() {
    catch_signals();
    auto request = request_of(options_);
    if (!request) return failed(request.error().message);
    if (Status sent = client_.send(*request, options_.fds); !sent)
      return failed(sent.error().message);
    for (;;) {
      if (!client_.has_line()) {
        std::array<pollfd, 2> wait{{{client_.fd(), POLLIN, 0}, {signals_.get(), POLLIN, 0}}};
        if (poll(wait.data(), wait.size(), -1) < 0) continue;
        if (wait[1].revents != 0) forward_signals();
        if (wait[0].revents == 0) continue;
      }
      auto message = client_.receive();
      if (!message) return failed(lost());
      if (const auto status = handle(*message)) return *status;
    }
  }

 private:
  int failed(const std::string& why, int status = kOwnFailure) {
    progress_.erase();
    log::error("{}", why);
    return status;
  }

  std::string lost() const {
    const std::string host = home_.empty() ? "" : " on " + home_;
    return fmt::format("lost the daemon{}: the program has been ended; see xenspand's log", host);
  }

  void catch_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int number : kForwarded) sigaddset(&set, number);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    signals_.reset(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  }

  void forward_signals() {
    signalfd_siginfo info{};
    while (read(signals_.get(), &info, sizeof info) == sizeof info) {
      const int number = static_cast<int>(info.ssi_signo);
      // A daemon that is gone shows at the next receive.
      [[maybe_unused]] const Status sent = client_.send({{"op", "signal"}, {"signo", number}});
      // The shell waits for this process to stop too.
      if (number == SIGTSTP) raise(SIGSTOP);
    }
  }

  std::optional<int> handle(const Json& message) {
    const std::string event = text_or(message, "event", "");
    if (event == "starting") {
      const Json* hosts = daemon::array_field(message, "hosts");
      if (hosts != nullptr && !hosts->empty() && hosts->front().is_string())
        home_ = hosts->front().get<std::string>();
      if (hosts != nullptr)
        progress_.show(fmt::format("starting slices on {} ...", joined(*hosts)));
      if (started_ != nullptr) *started_ = message;
    } else if (event == "ready") {
      progress_.erase();
    } else if (event == "running") {
      progress_.erase();
      if (!options_.detach) return std::nullopt;
      auto answer = client_.ask({{"op", "detach"}}, std::chrono::seconds(10));
      if (answer) return 0;
      return failed(answer.error().message);
    } else if (event == "failed") {
      return failed(text_or(message, "error", "xenspand gave no reason"),
                    static_cast<int>(number_or(message, "status", kOwnFailure)));
    } else if (event == "exited") {
      progress_.erase();
      const std::string text = text_or(message, "message", "");
      if (!text.empty()) log::error("{}", text);
      if (const Json* stats = daemon::object_field(message, "stats")) write_stats(options_, *stats);
      return static_cast<int>(number_or(message, "status", kOwnFailure));
    } else if (!daemon::flag_field(message, "ok")) {
      return failed(text_or(message, "error", "xenspand refused without a reason"));
    }
    return std::nullopt;
  }

  Client client_;
  const RunOptions& options_;
  Json* started_;
  UniqueFd signals_;
  Progress progress_;
  std::string home_;
};

}  // namespace

int run_domain(const DaemonChoice& daemon, const RunOptions& options, Json* started) {
  auto client = Client::connect(daemon);
  if (!client) {
    log::error("{}", client.error().message);
    return kOwnFailure;
  }
  return Run(std::move(*client), options, started).go();
}

}  // namespace xenspan::cli
