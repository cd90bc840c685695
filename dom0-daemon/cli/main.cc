// xenspan: the command line. See xenspan(1).
#include <CLI/CLI.hpp>
#include <algorithm>
#include <sstream>

#include "base/log.h"
#include "config.h"
#include "dom0-daemon/cli/advise_command.h"
#include "dom0-daemon/cli/check_command.h"
#include "dom0-daemon/cli/create_command.h"
#include "dom0-daemon/cli/inherited_files.h"
#include "dom0-daemon/cli/member_command.h"
#include "dom0-daemon/cli/run_command.h"
#include "dom0-daemon/cli/tables.h"
#include "dom0-daemon/cli/testbed.h"
#include "dom0-daemon/cli/top.h"
#include "dom0-daemon/daemon/cluster_key.h"
#include "dom0-daemon/daemon/placement.h"
#include "dom0-daemon/daemon/size_text.h"

namespace {

using namespace xenspan::cli;

constexpr int kUsage = 2;

// All options of all commands, and the command's exit status.
struct Arguments {
  DaemonChoice daemon;
  RunOptions run;
  std::string memory;
  std::string hosts;
  std::string stats;
  std::string domain;
  MigrateOptions migrate;
  MemberOptions member;
  std::string file;
  std::string without;
  std::string key_file = XENSPAN_SYSCONFDIR "/cluster.key";
  bool json = false;
  bool all = false;
  bool vcpus = false;
  bool once = false;
  bool console = false;
  TopOptions top;
  AdviseOptions advise;
  TestbedOptions testbed;
  int status = 0;
};

int fail(const std::string& message, int status) {
  xenspan::log::error("{}", message);
  return status;
}

int run(Arguments& arguments) {
  RunOptions& options = arguments.run;
  if (options.command.empty())
    return fail("run needs a program: xenspan run [options] -- PROGRAM ARGS...", kOwnFailure);
  if (!arguments.memory.empty()) {
    const auto bytes = xenspan::daemon::parse_size(arguments.memory, "--memory");
    if (!bytes) return fail(bytes.error().message, kOwnFailure);
    if (*bytes == 0) return fail("--memory is 0: give a size, for example 512M", kOwnFailure);
    options.memory = *bytes;
  }
  std::istringstream hosts(arguments.hosts);
  for (std::string host; std::getline(hosts, host, ',');) options.hosts.push_back(host);
  std::istringstream without(arguments.without);
  for (std::string name; std::getline(without, name, ',');) options.without.push_back(name);
  // CLI11 sets a flag without a value to "true".
  options.stats = !arguments.stats.empty();
  options.stats_file = arguments.stats == "true" ? "" : arguments.stats;
  return run_domain(arguments.daemon, options);
}

int make_key(const std::string& path) {
  if (const auto made = xenspan::daemon::make_cluster_key(path); !made)
    return fail(made.error().message, 1);
  fmt::print("made {}: copy it to every host of the cluster, readable by root only\n", path);
  return 0;
}

void add_run(CLI::App& app, Arguments& arguments) {
  CLI::App* run_app = app.add_subcommand("run", "start a program across hosts and wait for it");
  run_app->footer("PROGRAM [ARGS...] follow the options, after -- if you like.");
  run_app
      ->add_option("--vcpus", arguments.run.vcpus,
                   "number of vCPUs (default: all cores of the hosts)")
      ->check(CLI::Range(1, xenspan::daemon::kMaxVcpus))
      ->type_name("N");
  run_app->add_option("--memory", arguments.memory, "memory limit, as 512M or 4G")
      ->type_name("SIZE");
  run_app->add_option("--hosts", arguments.hosts, "hosts to span, as a,b (default: all)")
      ->type_name("LIST");
  run_app->add_option("--name", arguments.run.name, "the domain's name (default: the program's)")
      ->type_name("NAME");
  run_app
      ->add_option("--prefetch", arguments.run.prefetch,
                   "pages fetched beside a touched one, at most, or off")
      ->transform(CLI::Transformer(std::map<std::string, unsigned>{{"off", 0}}))
      ->check(CLI::Range(0u, xenspan::dsm::kMostPrefetch))
      ->type_name("N|off");
  run_app
      ->add_option("--without", arguments.without,
                   "do without these of the engine's features, as hold,batching")
      ->type_name("LIST");
  run_app
      ->add_option("--transport", arguments.run.transport,
                   "what pages travel by; auto: RDMA where all hosts have it (default: as the "
                   "daemon's configuration says)")
      ->check(CLI::IsMember({"tcp", "verbs", "auto"}))
      ->type_name("tcp|verbs|auto");
  run_app
      ->add_option("--policy", arguments.run.policy,
                   "where vCPUs are placed; with load and affinity they move by themselves "
                   "(default: spread)")
      ->check(CLI::IsMember({"spread", "pack", "load", "affinity"}))
      ->type_name("spread|pack|load|affinity");
  run_app->add_flag("--stats", arguments.stats,
                    "write statistics as JSON to standard error, or with --stats=FILE to a file");
  run_app->callback([&arguments] { arguments.status = run(arguments); });
}

void add_domain_commands(CLI::App& app, Arguments& arguments) {
  CLI::App* create = app.add_subcommand("create", "start the domain that a file describes");
  create->add_option("file", arguments.file, "domain file, see xenspan.cfg(5)")
      ->required()
      ->type_name("FILE");
  create->add_flag("-c,--console", arguments.console, "stay with the program, on this terminal");
  create->callback([&] {
    arguments.status = create_domain(arguments.daemon, arguments.file, arguments.console);
  });

  CLI::App* list = app.add_subcommand("list", "show domains");
  list->add_flag("--json", arguments.json, "as JSON");
  list->add_flag("-a,--all", arguments.all, "also those that ended lately");
  list->add_flag("-v,--vcpus", arguments.vcpus,
                 "their transport, policy and its last move, and their vCPUs: host, core, threads");
  list->callback([&] {
    arguments.status =
        list_domains(arguments.daemon, {arguments.all, arguments.vcpus, arguments.json});
  });

  CLI::App* hosts = app.add_subcommand("hosts", "show the hosts of the cluster");
  hosts->add_flag("--json", arguments.json, "as JSON");
  hosts->callback([&] { arguments.status = list_hosts(arguments.daemon, arguments.json); });

  CLI::App* destroy = app.add_subcommand("destroy", "end a domain at once");
  destroy->add_option("domain", arguments.domain, "name or uuid")->required()->type_name("DOMAIN");
  destroy->callback([&] { arguments.status = destroy_domain(arguments.daemon, arguments.domain); });

  CLI::App* migrate =
      app.add_subcommand("migrate", "move a vCPU of a running domain to another of its hosts");
  migrate->add_option("domain", arguments.migrate.domain, "name or uuid")
      ->required()
      ->type_name("DOMAIN");
  migrate->add_option("vcpu", arguments.migrate.vcpu, "number, see `xenspan list -v`")
      ->required()
      ->type_name("VCPU");
  migrate->add_option("host", arguments.migrate.host, "a host of the domain")
      ->required()
      ->type_name("HOST");
  migrate->add_flag("--alone", arguments.migrate.alone, "only to a core that no other vCPU uses");
  migrate->callback([&] { arguments.status = migrate_vcpu(arguments.daemon, arguments.migrate); });

  CLI::App* stats = app.add_subcommand("stats", "show a running domain's statistics as JSON");
  stats->add_option("domain", arguments.domain, "name or uuid")->required()->type_name("DOMAIN");
  stats->callback([&] { arguments.status = show_stats(arguments.daemon, arguments.domain); });

  CLI::App* advise_app =
      app.add_subcommand("advise", "which vCPUs belong together, and which data to pad");
  advise_app->add_option("domain", arguments.advise.domain, "name or uuid")->type_name("DOMAIN");
  advise_app
      ->add_option("--from", arguments.advise.file,
                   "of a run that is over: what its --stats=FILE wrote")
      ->type_name("FILE");
  advise_app->add_flag("--json", arguments.advise.json, "as JSON");
  advise_app->callback(
      [&arguments] { arguments.status = advise(arguments.daemon, arguments.advise); });

  CLI::App* top = app.add_subcommand("top", "show what domains are doing, live");
  top->add_flag("-b,--batch", arguments.top.batch, "print tables instead of taking the screen");
  top->add_flag("--once", arguments.once, "print one table and end");
  top->add_option("-n,--iterations", arguments.top.iterations, "end after N looks")
      ->check(CLI::Range(1, 1000000))
      ->type_name("N");
  top->add_option("-d,--delay", arguments.top.delay, "seconds between looks (default: 1)")
      ->check(CLI::Range(0.1, 3600.0))
      ->type_name("SECONDS");
  top->callback([&] {
    if (arguments.once) {
      arguments.top.batch = true;
      arguments.top.iterations = 1;
    }
    arguments.status = show_top(arguments.daemon, arguments.top);
  });
}

void add_member_commands(CLI::App& app, Arguments& arguments) {
  const auto add = [&](const char* name, const char* request, const char* help) {
    CLI::App* command = app.add_subcommand(name, help);
    command->add_option("domain", arguments.member.domain, "name or uuid")
        ->required()
        ->type_name("DOMAIN");
    command->add_option("host", arguments.member.host, "name, see `xenspan hosts`")
        ->required()
        ->type_name("HOST");
    command->callback([&arguments, request] {
      arguments.status = change_member(arguments.daemon, request, arguments.member);
    });
  };
  add("add-host", "add", "have a host join a running domain");
  add("drain", "drain", "have a host give all it has of a running domain to the others, and leave");
  add("remove-host", "remove", "drain, and take the host off the list of members");
}

void add_testbed(CLI::App& app, Arguments& arguments) {
  CLI::App* testbed =
      app.add_subcommand("testbed", "several hosts on this machine, in network namespaces");
  testbed->require_subcommand(1);
  const auto prefix = [&](CLI::App* command) {
    command->add_option("--prefix", arguments.testbed.prefix, "names begin with this (default: xs)")
        ->type_name("NAME");
  };
  CLI::App* up = testbed->add_subcommand("up", "make it");
  up->add_option("hosts", arguments.testbed.hosts, "number of hosts")->required()->type_name("N");
  up->add_option("--delay", arguments.testbed.delay, "one-way delay, as 50us")->type_name("TIME");
  up->add_option("--rate", arguments.testbed.rate, "bandwidth of each host, as 10gbit")
      ->type_name("RATE");
  up->add_flag("--encrypt", arguments.testbed.encrypt, "encrypt guest memory between the hosts");
  prefix(up);
  up->callback([&] { arguments.status = testbed_up(arguments.testbed); });
  // What `up` starts for a delay where the kernel has no netem; shown by no help.
  CLI::App* wire = testbed->add_subcommand("wire")->group("");
  wire->add_option("hosts", arguments.testbed.hosts)->required();
  wire->add_option("--delay", arguments.testbed.delay);
  wire->add_option("--rate", arguments.testbed.rate);
  prefix(wire);
  wire->callback([&] { arguments.status = testbed_wire(arguments.testbed); });
  CLI::App* down = testbed->add_subcommand("down", "remove it");
  prefix(down);
  down->callback([&] { arguments.status = testbed_down(arguments.testbed.prefix); });
  CLI::App* status = testbed->add_subcommand("status", "show it");
  prefix(status);
  status->callback([&] { arguments.status = testbed_status(arguments.testbed.prefix); });
}

// Where things are in the command line of `run`. Its program and that program's arguments are none
// of CLI11's business.
struct RunWords {
  bool is_run = false;
  std::string command;  // the first word that is no option
  int program = 0;  // index of the first word after the options (and "--"); argc when there is none
  int end = 0;      // of what xenspan itself reads
};

RunWords find_run(int argc, char** argv) {
  const std::vector<std::string> with_value = {"--host",      "--socket", "--vcpus",    "--memory",
                                               "--hosts",     "--name",   "--prefetch", "--without",
                                               "--transport", "--policy"};
  RunWords words{false, "", argc, argc};
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (std::find(with_value.begin(), with_value.end(), word) != with_value.end()) {
      ++i;
    } else if (words.is_run && (word == "--" || !word.starts_with('-'))) {
      words.end = i;
      words.program = word == "--" ? i + 1 : i;
      return words;
    } else if (!word.starts_with('-')) {
      words.command = word;
      if (word != "run") return words;
      words.is_run = true;
    }
  }
  return words;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  arguments.run.fds = inherited_files();
  arguments.run.fd_numbers = arguments.run.fds;
  xenspan::log::open("xenspan", "");

  CLI::App app("Runs programs across several hosts as one. See xenspan(1).", "xenspan");
  app.set_version_flag("--version", "xenspan " PACKAGE_VERSION);
  app.add_option("--host", arguments.daemon.host, "the daemon of this name on this machine")
      ->type_name("NAME");
  app.add_option("--socket", arguments.daemon.socket, "the daemon with this control socket")
      ->type_name("PATH");
  app.require_subcommand(1);
  add_run(app, arguments);
  add_domain_commands(app, arguments);
  add_member_commands(app, arguments);
  add_testbed(app, arguments);
  CLI::App* key =
      app.add_subcommand("cluster-key", "make the key that the hosts of a cluster share");
  key->add_option("file", arguments.key_file, "where to (default: the configuration folder)")
      ->type_name("FILE");
  key->callback([&] { arguments.status = make_key(arguments.key_file); });

  CLI::App* check = app.add_subcommand("check", "check the declaration of a domain under Xen");
  check->add_option("file", arguments.file, "see xenspan-domain(5)")->required()->type_name("FILE");
  check->callback([&] { arguments.status = check_declaration(arguments.file); });

  const RunWords words = find_run(argc, argv);
  const auto named = [&](const CLI::App* each) { return each->get_name() == words.command; };
  if (!words.command.empty() && app.get_subcommands(named).empty())
    return fail("unknown command " + words.command + ": see xenspan --help", kUsage);
  if (words.is_run) arguments.run.command.assign(argv + words.program, argv + argc);
  try {
    app.parse(words.is_run ? words.end : argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return fail(std::string(error.what()) + ": see xenspan --help",
                words.is_run ? kOwnFailure : kUsage);
  }
  return arguments.status;
}
