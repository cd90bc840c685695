#include "dom0-daemon/cli/testbed.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/unique_fd.h"
#include "dom0-daemon/cli/client.h"
#include "dom0-daemon/cli/delay_wire.h"
#include "dom0-daemon/cli/failure.h"
#include "dom0-daemon/cli/program.h"
#include "dom0-daemon/cli/tables.h"
#include "dom0-daemon/daemon/cluster_key.h"
#include "dom0-daemon/daemon/daemon_config.h"
#include "dom0-daemon/daemon/names.h"

namespace xenspan::cli {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kMaxHosts = 26;
constexpr milliseconds kSeeLimit{30000};
constexpr milliseconds kPoll{50};
constexpr const char* kMtu = "9000";
// Packets that wait out their delay; tc's default of 1000 would drop bursts.
constexpr const char* kNetemLimit = "100000";

class Testbed {
 public:
  explicit Testbed(std::string prefix) : prefix_(std::move(prefix)) {}

  std::string dir() const { return fmt::format("{}/testbed-{}", daemon::kRunRoot, prefix_); }
  std::string space(const std::string& host) const { return prefix_ + "-" + host; }
  std::string bridge_space() const { return space("bridge"); }
  static std::string host(int index) { return std::string(1, static_cast<char>('a' + index)); }
  static std::string address(int index) { return fmt::format("10.88.0.{}", index + 1); }
  std::string socket(const std::string& host) const { return dir() + "/" + host + "/control"; }
  std::string file(const std::string& host, const char* kind) const {
    return fmt::format("{}/{}.{}", dir(), host, kind);
  }

  // Hosts whose daemon was started.
  std::vector<std::string> hosts() const {
    std::vector<std::string> found;
    for (int i = 0; i < kMaxHosts; ++i) {
      std::error_code error;
      if (fs::exists(file(host(i), "pid"), error)) found.push_back(host(i));
    }
    return found;
  }

  // Namespaces of this bed that exist, whoever made them under these names.
  std::vector<std::string> spaces() const {
    std::vector<std::string> found;
    std::error_code error;
    for (int i = 0; i < kMaxHosts; ++i)
      if (fs::exists("/run/netns/" + space(host(i)), error)) found.push_back(space(host(i)));
    if (fs::exists("/run/netns/" + bridge_space(), error)) found.push_back(bridge_space());
    return found;
  }

  bool exists() const {
    std::error_code error;
    return fs::exists(dir(), error) || !spaces().empty();
  }

  Status make(const TestbedOptions& options);
  Status remove();

 private:
  Status make_bridge();
  Status make_host(int index, const TestbedOptions& options);
  Status link_host(int index);
  Status start_wire(const TestbedOptions& options);
  Status write_config(int index, const TestbedOptions& options);
  Status start_daemon(int index, const std::string& program);
  Status wait_until_joined(int hosts);
  Status daemons_alive(int hosts) const;
  Status set_default_link();

  const std::string prefix_;
  bool wire_ = false;  // hosts are joined by a process of ours
};

// One command at a time works on a bed.
Result<UniqueFd> begin(const std::string& prefix) {
  if (geteuid() != 0)
    return Error{EPERM, "a test bed needs root, to make network namespaces: use sudo"};
  if (!daemon::is_host_name(prefix) || prefix.size() > 16)
    return Error{EINVAL,
                 fmt::format("prefix \"{}\": use up to 16 letters, digits and '-'", prefix)};
  std::error_code error;
  fs::create_directories(daemon::kRunRoot, error);
  if (error) return system_error(error.value(), std::string("cannot make ") + daemon::kRunRoot);
  const std::string path = fmt::format("{}/testbed-{}.lock", daemon::kRunRoot, prefix);
  UniqueFd lock(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock) return system_error(errno, "cannot make " + path);
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
    return Error{EBUSY,
                 fmt::format("another command is working on the test bed {}: wait for it", prefix)};
  return lock;
}

std::vector<std::string> in_space(const std::string& space, std::vector<std::string> rest) {
  std::vector<std::string> command = {"ip", "-n", space};
  command.insert(command.end(), rest.begin(), rest.end());
  return command;
}

Status run_all(const std::vector<std::vector<std::string>>& commands) {
  for (const auto& command : commands)
    if (Status done = run_program(command); !done) return done;
  return {};
}

bool has_netem(const std::string& space) {
  const std::vector<std::string> lo = {"tc", "-n", space, "qdisc", "add", "dev", "lo", "root"};
  std::vector<std::string> add = lo, remove = lo;
  add.push_back("netem");
  remove[4] = "del";
  return run_program(add) && run_program(remove);
}

// A delay takes netem. A rate alone takes tbf, which more kernels have.
std::vector<std::string> shape_command(const std::string& space, const TestbedOptions& options) {
  std::vector<std::string> command = {"tc", "-n", space, "qdisc", "add", "dev", "eth0", "root"};
  if (options.delay.empty()) {
    command.insert(command.end(), {"tbf", "rate", options.rate, "burst", "4mb", "latency", "50ms"});
    return command;
  }
  command.insert(command.end(), {"netem", "limit", kNetemLimit, "delay", options.delay});
  if (!options.rate.empty()) command.insert(command.end(), {"rate", options.rate});
  return command;
}

std::string last_line(const std::string& path) {
  std::ifstream file(path);
  std::string last;
  for (std::string line; std::getline(file, line);)
    if (!line.empty()) last = line;
  return last;
}

Status Testbed::make_bridge() {
  const std::string space = bridge_space();
  const Status made = run_all({{"ip", "netns", "add", space},
                               in_space(space, {"link", "add", "br0", "type", "bridge"}),
                               in_space(space, {"link", "set", "br0", "mtu", kMtu, "up"}),
                               in_space(space, {"link", "set", "lo", "up"})});
  if (!made) return made;
  // A switch does not look at IP packets. Where a container engine has loaded br_netfilter, this
  // one would pass each of them through the packet filter.
  const std::string filter = "/proc/sys/net/bridge/bridge-nf-call-iptables";
  std::error_code error;
  if (!fs::exists(filter, error)) return made;
  return run_program({"ip", "netns", "exec", space, "sh", "-c", "echo 0 > " + filter});
}

Status Testbed::make_host(int index, const TestbedOptions& options) {
  const std::string own = space(host(index));
  Status made = run_all({{"ip", "netns", "add", own}, in_space(own, {"link", "set", "lo", "up"})});
  if (!made || wire_) return made;
  const std::string port = "to-" + host(index);
  made = run_all({
      {"ip", "link", "add", "eth0", "netns", own, "mtu", kMtu, "type", "veth", "peer", "name", port,
       "netns", bridge_space(), "mtu", kMtu},
      in_space(bridge_space(), {"link", "set", port, "master", "br0", "up"}),
  });
  if (!made || (options.delay.empty() && options.rate.empty())) return made;
  return run_program(shape_command(own, options));
}

// Its eth0 is there by now.
Status Testbed::link_host(int index) {
  const std::string own = space(host(index));
  return run_all({
      in_space(own, {"link", "set", "eth0", "mtu", kMtu}),
      in_space(own, {"address", "add", address(index) + "/16", "dev", "eth0"}),
      in_space(own, {"link", "set", "eth0", "up"}),
  });
}

Status Testbed::start_wire(const TestbedOptions& options) {
  std::error_code error;
  const std::string self = fs::read_symlink("/proc/self/exe", error).string();
  std::vector<std::string> command = {
      self,       "testbed", "wire",    std::to_string(options.hosts),
      "--prefix", prefix_,   "--delay", options.delay};
  if (!options.rate.empty()) command.insert(command.end(), {"--rate", options.rate});
  const std::string log = dir() + "/wire.log", pid_file = dir() + "/wire.pid";
  if (Status started = start_in_namespace(bridge_space(), command, log, pid_file); !started)
    return started;
  const auto deadline = std::chrono::steady_clock::now() + kSeeLimit;
  while (!fs::exists(dir() + "/wire.ready", error)) {
    const auto process = read_pid_file(pid_file);
    if (!process || !is_alive(*process) || std::chrono::steady_clock::now() > deadline)
      return Error{ECHILD, "the wire with a delay did not start: " + last_line(log)};
    std::this_thread::sleep_for(kPoll);
  }
  return {};
}

Status Testbed::write_config(int index, const TestbedOptions& options) {
  std::vector<int> cores = daemon::usable_cpus();
  if (cores.empty()) cores = {0};
  std::string text = "# Host of a test bed: xenspan testbed up\n";
  text +=
      fmt::format("name = {}\naddress = {}\nport = {}\ncpus = {}\n", host(index), address(index),
                  daemon::kDefaultPort, cores[static_cast<std::size_t>(index) % cores.size()]);
  text += fmt::format("rundir = {}\nkey = {}/cluster.key\n", dir(), dir());
  if (options.encrypt) text += "encrypt = true\n";
  for (int other = 0; other < options.hosts; ++other)
    if (other != index)
      text += fmt::format("peer = {}={}:{}\n", host(other), address(other), daemon::kDefaultPort);
  const std::string path = file(host(index), "conf");
  std::ofstream out(path);
  out << text;
  out.close();
  if (!out) return system_error(errno, "cannot write " + path, "is /run full?");
  return {};
}

Status Testbed::start_daemon(int index, const std::string& program) {
  const std::string name = host(index);
  return start_in_namespace(space(name), {program, "--config", file(name, "conf")},
                            file(name, "log"), file(name, "pid"));
}

Status Testbed::daemons_alive(int hosts) const {
  for (int i = 0; i < hosts; ++i) {
    const auto process = read_pid_file(file(host(i), "pid"));
    if (process && is_alive(*process)) continue;
    return Error{
        ECHILD, fmt::format("host {} did not start: {}", host(i), last_line(file(host(i), "log")))};
  }
  return {};
}

Status Testbed::wait_until_joined(int hosts) {
  const auto deadline = std::chrono::steady_clock::now() + kSeeLimit;
  const auto sees_all = [&](int index) {
    auto client = Client::connect_to(socket(host(index)));
    if (!client) return false;
    const auto answer = client->ask({{"op", "hosts"}}, seconds(5));
    const Json* list = answer ? daemon::array_field(*answer, "hosts") : nullptr;
    return list != nullptr && std::count_if(list->begin(), list->end(), [](const Json& each) {
                                return daemon::text_or(each, "state", "") == "up";
                              }) == hosts;
  };
  for (int index = 0; index < hosts;) {
    if (sees_all(index)) {
      ++index;
      continue;
    }
    if (Status alive = daemons_alive(hosts); !alive) return alive;
    if (std::chrono::steady_clock::now() > deadline)
      return Error{ETIMEDOUT, fmt::format("host {} does not see all others: {}", host(index),
                                          last_line(file(host(index), "log")))};
    std::this_thread::sleep_for(kPoll);
  }
  return {};
}

// Where the command line looks when no daemon of the machine's own runs: the first bed's host a.
Status Testbed::set_default_link() {
  const std::string link = std::string(daemon::kRunRoot) + "/default";
  std::error_code error;
  // exists() follows the link: one that leads nowhere is left from a bed that is gone.
  if (fs::exists(link, error)) return {};
  fs::remove(link, error);
  fs::create_symlink(socket(host(0)), link, error);
  // Another bed, made at this moment, may have been faster.
  if (error && error != std::errc::file_exists)
    return system_error(error.value(), "cannot make " + link);
  return {};
}

Status Testbed::make(const TestbedOptions& options) {
  const auto program = find_program("xenspand", XENSPAN_DAEMON_PROGRAM);
  if (!program) return program.error();
  std::error_code error;
  fs::create_directories(dir(), error);
  if (error) return system_error(error.value(), "cannot make " + dir());
  if (Status made = daemon::make_cluster_key(dir() + "/cluster.key"); !made) return made;
  if (Status made = make_bridge(); !made) return made;
  wire_ = !options.delay.empty() && !has_netem(bridge_space());
  for (int i = 0; i < options.hosts; ++i)
    if (Status made = make_host(i, options); !made) return made;
  if (wire_)
    if (Status started = start_wire(options); !started) return started;
  for (int i = 0; i < options.hosts; ++i)
    if (Status linked = link_host(i); !linked) return linked;
  for (int i = 0; i < options.hosts; ++i) {
    if (Status written = write_config(i, options); !written) return written;
    if (Status started = start_daemon(i, *program); !started) return started;
  }
  if (Status joined = wait_until_joined(options.hosts); !joined) return joined;
  return set_default_link();
}

Status Testbed::remove() {
  for (const std::string& name : hosts())
    if (const auto process = read_pid_file(file(name, "pid"))) end_process(*process);
  if (const auto process = read_pid_file(dir() + "/wire.pid")) end_process(*process);
  Status result;
  for (const std::string& name : spaces())
    if (Status removed = run_program({"ip", "netns", "delete", name}); !removed) result = removed;
  std::error_code error;
  const std::string link = std::string(daemon::kRunRoot) + "/default";
  if (fs::read_symlink(link, error).string().starts_with(dir() + "/")) fs::remove(link, error);
  fs::remove_all(dir(), error);
  if (error) return system_error(error.value(), "cannot remove " + dir());
  return result;
}

}  // namespace

int testbed_up(const TestbedOptions& options) {
  const auto lock = begin(options.prefix);
  if (!lock) return fail(lock.error());
  if (options.hosts < 1 || options.hosts > kMaxHosts)
    return fail(
        {EINVAL, fmt::format("{} hosts: a test bed has 1 to {}", options.hosts, kMaxHosts)});
  if (!options.delay.empty())
    if (const auto delay = parse_delay(options.delay); !delay) return fail(delay.error());
  if (!options.rate.empty())
    if (const auto rate = parse_rate(options.rate); !rate || *rate == 0)
      return fail(rate ? Error{EINVAL, "rate 0: nothing would ever arrive"} : rate.error());
  Testbed bed(options.prefix);
  if (bed.exists())
    return fail(
        {EEXIST, fmt::format("the test bed {} is up already ({} hosts): use `xenspan testbed "
                             "down` first",
                             options.prefix, bed.hosts().size())});
  if (Status made = bed.make(options); !made) {
    if (Status removed = bed.remove(); !removed) log::error("{}", removed.error().message);
    return fail(made.error());
  }
  fmt::print("test bed {} is up: hosts {} to {}; try: xenspan run -- nproc\n", options.prefix,
             Testbed::host(0), Testbed::host(options.hosts - 1));
  return 0;
}

int testbed_wire(const TestbedOptions& options) {
  const Testbed bed(options.prefix);
  DelayWire wire;
  for (int i = 0; i < options.hosts; ++i) wire.spaces.push_back(bed.space(Testbed::host(i)));
  const auto delay = parse_delay(options.delay);
  if (!delay) return fail(delay.error());
  wire.delay_ns = *delay;
  if (!options.rate.empty()) {
    const auto rate = parse_rate(options.rate);
    if (!rate) return fail(rate.error());
    wire.rate = *rate;
  }
  const Status ended = run_delay_wire(wire, bed.dir() + "/wire.ready");
  return ended ? 0 : fail(ended.error());
}

int testbed_down(const std::string& prefix) {
  const auto lock = begin(prefix);
  if (!lock) return fail(lock.error());
  Testbed bed(prefix);
  if (!bed.exists()) {
    fmt::print("there is no test bed {}\n", prefix);
    return 0;
  }
  if (Status removed = bed.remove(); !removed) return fail(removed.error());
  fmt::print("test bed {} is down\n", prefix);
  return 0;
}

int testbed_status(const std::string& prefix) {
  const Testbed bed(prefix);
  if (!bed.exists()) {
    fmt::print("there is no test bed {}\n", prefix);
    return 1;
  }
  std::vector<std::vector<std::string>> rows = {
      {"HOST", "STATE", "NAMESPACE", "ADDRESS", ">PID", "SOCKET", "LOG"}};
  bool all = true;
  for (const std::string& name : bed.hosts()) {
    const auto process = read_pid_file(bed.file(name, "pid"));
    const bool alive = process && is_alive(*process);
    all = all && alive;
    rows.push_back(
        {name, alive ? "up" : "ended", bed.space(name), Testbed::address(name.front() - 'a'),
         process ? fmt::format("{}", process->pid) : "-", bed.socket(name), bed.file(name, "log")});
  }
  fmt::print("{}", table(rows));
  return all ? 0 : 1;
}

}  // namespace xenspan::cli
