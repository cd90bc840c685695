// xenspand: the daemon of one host. See xenspand(8).
#include <CLI/CLI.hpp>
#include <csignal>
#include <fstream>
#include <iostream>
#include <sstream>

#include "base/log.h"
#include "config.h"
#include "dom0-daemon/daemon/daemon.h"
#include "dom0-daemon/daemon/daemon_config.h"

namespace {

using xenspan::Status;
using xenspan::daemon::Config;

constexpr const char* kDefaultFile = XENSPAN_SYSCONFDIR "/xenspand.conf";

Status read_file(Config& config, const std::string& path, bool required) {
  std::ifstream file(path);
  if (!file) {
    if (!required && errno == ENOENT) return {};
    return xenspan::system_error(errno, "cannot read " + path, "check --config");
  }
  std::stringstream text;
  text << file.rdbuf();
  return xenspan::daemon::read_config(config, text.str(), path);
}

int fail(const std::string& message) {
  xenspan::log::error("{}", message);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  xenspan::log::open("xenspand", "");
  CLI::App app("The daemon that joins this host to a xenspan cluster. See xenspand(8).",
               "xenspand");
  app.set_version_flag("--version", "xenspand " PACKAGE_VERSION);
  std::string file;
  app.add_option("-c,--config", file,
                 std::string("configuration file (default: ") + kDefaultFile + ")")
      ->type_name("FILE");
  std::vector<std::vector<std::string>> values(xenspan::daemon::config_keys().size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto& key = xenspan::daemon::config_keys()[i];
    app.add_option(std::string("--") + key.name, values[i], key.help)
        ->type_name(key.value)
        ->expected(1)
        ->take_all();
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return fail(std::string(error.what()) + ": see xenspand --help");
  }

  Config config;
  if (Status read = read_file(config, file.empty() ? kDefaultFile : file, !file.empty()); !read)
    return fail(read.error().message);
  for (std::size_t i = 0; i < values.size(); ++i)
    for (const std::string& value : values[i])
      if (Status set = set_config(config, xenspan::daemon::config_keys()[i].name, value); !set)
        return fail(set.error().message);
  if (Status complete = complete_config(config); !complete) return fail(complete.error().message);
  xenspan::log::open("xenspand", config.name);
  xenspan::log::set_level(config.log_level);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_IGN);

  auto daemon = xenspan::daemon::Daemon::start(config);
  if (!daemon) return fail(daemon.error().message);
  (*daemon)->run();
  return 0;
}
