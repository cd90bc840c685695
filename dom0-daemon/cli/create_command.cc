#include "dom0-daemon/cli/create_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>

#include "dom0-daemon/cli/domain_file.h"
#include "dom0-daemon/cli/failure.h"
#include "dom0-daemon/cli/run_command.h"

namespace xenspan::cli {
namespace {

Result<DomainFile> read_domain_file(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  if (file) text << file.rdbuf();
  if (!file)
    return system_error(errno, "cannot read " + path, "name a domain file, see xenspan.cfg(5)");
  return parse_domain_file(text.str(), path);
}

Result<UniqueFd> open_file(const std::string& path, int flags) {
  UniqueFd fd(open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY, 0666));
  if (!fd) return system_error(errno, "cannot open " + path, "correct the domain file");
  return fd;
}

// What a program that runs on its own reads and writes.
Result<std::vector<UniqueFd>> open_files(DomainFile& file) {
  std::vector<UniqueFd> fds;
  if (file.input.empty()) file.input = "/dev/null";
  if (file.output.empty()) file.output = file.name + ".log";
  auto input = open_file(file.input, O_RDONLY);
  if (!input) return input.error();
  fds.push_back(std::move(*input));
  constexpr int kAppend = O_WRONLY | O_CREAT | O_APPEND;
  auto output = open_file(file.output, kAppend);
  if (!output) return output.error();
  UniqueFd copy(dup(output->get()));
  fds.push_back(std::move(*output));
  if (!file.errors.empty() && file.errors != file.output) {
    auto errors = open_file(file.errors, kAppend);
    if (!errors) return errors.error();
    copy = std::move(*errors);
  }
  fds.push_back(std::move(copy));
  return fds;
}

}  // namespace

int create_domain(const DaemonChoice& daemon, const std::string& path, bool console) {
  auto file = read_domain_file(path);
  if (!file) return fail(file.error());
  RunOptions options;
  options.name = file->name;
  options.vcpus = file->vcpus;
  options.memory = file->memory;
  options.hosts = file->hosts;
  options.command = file->command;
  options.environment = file->environment;
  options.prefetch = file->prefetch;
  options.without = file->without;
  options.directory = file->directory;
  options.transport = file->transport;
  options.policy = file->policy;
  options.fd_numbers = {0, 1, 2};
  if (console) {
    options.fds = {0, 1, 2};
    return run_domain(daemon, options);
  }
  auto fds = open_files(*file);
  if (!fds) return fail(fds.error());
  for (const UniqueFd& fd : *fds) options.fds.push_back(fd.get());
  options.detach = true;
  Json started;
  if (const int status = run_domain(daemon, options, &started); status != 0)
    return status == kOwnFailure ? 1 : status;
  fmt::print("domain {} ({}) runs; its output goes to {}\n", file->name,
             daemon::text_or(started, "domain", ""), file->output);
  return 0;
}

}  // namespace xenspan::cli
