#include "dom0-daemon/hypervisor/usermode/proc_files.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string_view>

#include "dom0-daemon/hypervisor/usermode/machine_tree.h"
#include "dsm-rdma/types.h"

namespace xenspan::hypervisor::usermode {
namespace {

namespace fs = std::filesystem;
using Answer = ProcFiles::Answer;

constexpr std::size_t kCommBytes = 15;

std::string read_text(const char* path) {
  std::ifstream stream(path);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string joined_with_nul(const std::vector<std::string>& strings) {
  std::string text;
  for (const std::string& string : strings) {
    text += string;
    text += '\0';
  }
  return text;
}

// "cpu MHz\t\t: 2596" -> "cpu MHz"
std::string key_of(const std::string& line) {
  const std::string key = line.substr(0, line.find(':'));
  return key.substr(0, key.find_last_not_of(" \t") + 1);
}

// A whole decimal number, or nothing.
std::optional<int> number_of(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_or_under(const std::string& path, std::string_view directory) {
  return path.starts_with(directory) &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

struct Sizes {
  std::uint64_t mapped = 0, writable = 0, code = 0, stack = 0;  // bytes
};

// Adds up the lines of a maps file.
Sizes sizes_of(const std::string& maps) {
  Sizes sizes;
  for (const std::string& line : lines_of(maps)) {
    unsigned long start = 0, end = 0;
    std::array<char, 5> rights{};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &start, &end, rights.data()) != 3) continue;
    sizes.mapped += end - start;
    if (rights[1] == 'w' && rights[3] == 'p') sizes.writable += end - start;
    if (rights[2] == 'x') sizes.code += end - start;
    if (line.ends_with("[stack]")) sizes.stack += end - start;
  }
  return sizes;
}

Answer contents(std::string text) { return {Answer::kContents, std::move(text)}; }
Answer redirect(std::string path) { return {Answer::kRedirect, std::move(path)}; }

}  // namespace

ProcFiles::ProcFiles(Sources sources) : sources_(std::move(sources)) {
  if (sources_.vcpus == 0) sources_.vcpus = 1;
  std::error_code error;
  const fs::path real = fs::canonical(sources_.program, error);
  program_ = error ? sources_.program : real.string();
  write_machine_tree({sources_.vcpus, sources_.memory}, sources_.directory);
}

std::optional<Answer> ProcFiles::resolve(const std::string& path) const {
  for (const char* tree : {"/sys/devices/system/cpu", "/sys/devices/system/node"}) {
    if (is_or_under(path, tree)) return redirect(sources_.directory + path);
  }
  if (!path.starts_with("/proc/")) return std::nullopt;
  const std::string_view rest = std::string_view(path).substr(6);
  const std::size_t slash = rest.find('/');
  const std::string_view first = rest.substr(0, slash);
  const std::string name(slash == std::string_view::npos ? "" : rest.substr(slash + 1));
  if (first == "self") return resolve_process(name, sources_.pid, true);
  if (first == "thread-self") return resolve_process(name, sources_.pid, true);
  if (const std::optional<int> id = number_of(first)) {
    if (*id != sources_.pid && !is_thread(*id)) return std::nullopt;
    return resolve_process(name, *id, *id == getpid());
  }
  if (slash != std::string_view::npos) return std::nullopt;
  if (first == "cpuinfo") return contents(cpu_info());
  if (first == "stat") return contents(cpu_times());
  if (first == "meminfo") return contents(memory_info());
  return std::nullopt;
}

// A file of the guest's process or of one of its threads. `real`: the path names the home's own
// process already.
std::optional<Answer> ProcFiles::resolve_process(const std::string& name, int thread,
                                                 bool real) const {
  if (name == "maps" || name == "smaps") return contents(sources_.maps());
  if (name == "exe") return Answer{Answer::kLink, program_};
  if (name == "cmdline") return contents(joined_with_nul(sources_.arguments));
  if (name == "environ") return contents(joined_with_nul(sources_.environment));
  if (name == "auxv" && !sources_.auxv.empty()) return contents(sources_.auxv);
  if (name == "comm") return contents(comm() + "\n");
  if (name == "status") return contents(status(thread));
  if (name == "stat") return contents(stat(thread));
  if (name == "statm") return contents(statm());
  if (name == "task") return redirect(task_directory());
  if (name.starts_with("task/")) return resolve_task(name.substr(5));
  if (is_or_under(name, "fd")) return redirect("/proc/self/" + name);
  if (real) return std::nullopt;
  return redirect(name.empty() ? "/proc/self" : "/proc/self/" + name);
}

std::optional<Answer> ProcFiles::resolve_task(const std::string& rest) const {
  const std::size_t slash = rest.find('/');
  const std::optional<int> id = number_of(std::string_view(rest).substr(0, slash));
  const std::string directory = task_directory();
  // A thread that is not there: the generated directory has no such entry either.
  if (!id || !is_thread(*id) || slash == std::string::npos) {
    return redirect(directory + "/" + rest);
  }
  return resolve_process(rest.substr(slash + 1), *id, false);
}

bool ProcFiles::is_thread(int id) const {
  const std::vector<int> threads = sources_.threads();
  return std::find(threads.begin(), threads.end(), id) != threads.end();
}

// A directory with one empty directory a thread, made to agree with the threads there are now.
std::string ProcFiles::task_directory() const {
  const std::string directory = sources_.directory + "/task";
  const std::lock_guard<std::mutex> lock(task_mutex_);
  std::set<std::string> wanted;
  for (const int thread : sources_.threads()) wanted.insert(std::to_string(thread));
  std::error_code ignored;
  fs::create_directories(directory, ignored);
  std::vector<fs::path> gone;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, ignored)) {
    if (wanted.erase(entry.path().filename()) == 0) gone.push_back(entry.path());
  }
  for (const fs::path& path : gone) fs::remove(path, ignored);
  for (const std::string& name : wanted) fs::create_directory(directory + "/" + name, ignored);
  return directory;
}

std::string ProcFiles::comm() const {
  return fs::path(sources_.program).filename().string().substr(0, kCommBytes);
}

// The host's first processor, once for each vCPU, as cores of one package.
std::string ProcFiles::cpu_info() const {
  std::vector<std::string> block;
  for (const std::string& line : lines_of(read_text("/proc/cpuinfo"))) {
    if (line.empty()) break;
    block.push_back(line);
  }
  std::string text;
  for (unsigned cpu = 0; cpu < sources_.vcpus; ++cpu) {
    for (const std::string& line : block) {
      const std::string key = key_of(line);
      std::optional<unsigned> value;
      if (key == "processor" || key == "core id" || key == "apicid" || key == "initial apicid") {
        value = cpu;
      } else if (key == "siblings" || key == "cpu cores") {
        value = sources_.vcpus;
      } else if (key == "physical id") {
        value = 0;
      }
      text += value ? fmt::format("{}: {}\n", line.substr(0, line.find(':')), *value) : line + "\n";
    }
    text += '\n';
  }
  return text;
}

// /proc/stat with one line a vCPU. The times are those of the home's processors, taken in turn.
std::string ProcFiles::cpu_times() const {
  std::vector<std::string> host_cpus, others;
  for (const std::string& line : lines_of(read_text("/proc/stat"))) {
    if (line.starts_with("cpu")) {
      host_cpus.push_back(line);
    } else {
      others.push_back(line);
    }
  }
  if (host_cpus.size() < 2) return read_text("/proc/stat");
  std::array<std::uint64_t, 10> sum{};
  std::string lines;
  for (unsigned cpu = 0; cpu < sources_.vcpus; ++cpu) {
    const std::string& host = host_cpus[1 + cpu % (host_cpus.size() - 1)];
    const std::string times = host.substr(std::min(host.find(' '), host.size()));
    lines += fmt::format("cpu{}{}\n", cpu, times);
    std::istringstream stream(times);
    std::uint64_t ticks = 0;
    for (std::size_t i = 0; i < sum.size() && stream >> ticks; ++i) sum[i] += ticks;
  }
  std::string text = fmt::format("cpu  {}\n{}", fmt::join(sum, " "), lines);
  for (const std::string& line : others) text += line + "\n";
  return text;
}

std::string ProcFiles::memory_info() const {
  const std::uint64_t total = sources_.memory / 1024;
  const std::uint64_t used = std::min(total, sizes_of(sources_.maps()).writable / 1024);
  const std::uint64_t free = total - used;
  std::string text;
  const auto line = [&text](const char* name, std::uint64_t kilobytes) {
    text += fmt::format("{:<16}{:8} kB\n", fmt::format("{}:", name), kilobytes);
  };
  line("MemTotal", total);
  line("MemFree", free);
  line("MemAvailable", free);
  for (const char* none : {"Buffers", "Cached", "SwapCached"}) line(none, 0);
  line("Active", used);
  line("Inactive", 0);
  line("Active(anon)", used);
  for (const char* none : {"Inactive(anon)", "Active(file)", "Inactive(file)", "Unevictable",
                           "Mlocked", "SwapTotal", "SwapFree", "Dirty", "Writeback"}) {
    line(none, 0);
  }
  line("AnonPages", used);
  for (const char* none : {"Mapped", "Shmem", "Slab", "SReclaimable", "SUnreclaim"}) line(none, 0);
  line("CommitLimit", total);
  line("Committed_AS", used);
  text += "HugePages_Total:       0\nHugePages_Free:        0\n";
  line("Hugepagesize", 2048);
  return text;
}

// The home process's status with the guest's numbers in it.
std::string ProcFiles::status(int thread) const {
  const Sizes sizes = sizes_of(sources_.maps());
  const auto kilobytes = [](std::uint64_t bytes) { return fmt::format("{:8} kB", bytes / 1024); };
  const unsigned vcpus = sources_.vcpus;
  std::string text;
  for (const std::string& line : lines_of(read_text("/proc/self/status"))) {
    const std::string key = key_of(line);
    std::optional<std::string> value;
    if (key == "Name") value = comm();
    if (key == "Tgid" || key == "NStgid") value = std::to_string(sources_.pid);
    if (key == "Pid" || key == "NSpid") value = std::to_string(thread);
    if (key == "Threads") value = std::to_string(sources_.threads().size());
    if (key == "VmPeak" || key == "VmSize") value = kilobytes(sizes.mapped);
    if (key == "VmData") value = kilobytes(sizes.writable);
    if (key == "VmStk") value = kilobytes(sizes.stack);
    if (key == "VmExe") value = kilobytes(sizes.code);
    if (key == "Cpus_allowed") value = cpu_map(vcpus);
    if (key == "Cpus_allowed_list") value = cpu_list(vcpus);
    if (key == "Mems_allowed") value = "1";
    if (key == "Mems_allowed_list") value = "0";
    // How a slice is confined is not the guest's.
    if (key == "Seccomp" || key == "Seccomp_filters") value = "0";
    text += value ? fmt::format("{}:\t{}\n", key, *value) : line + "\n";
  }
  return text;
}

// The home process's stat with the guest's numbers in it; field numbers are those of proc(5).
std::string ProcFiles::stat(int thread) const {
  const std::string host = read_text("/proc/self/stat");
  const std::size_t end = host.rfind(')');
  if (end == std::string::npos) return host;
  std::vector<std::string> fields{"", std::to_string(thread), fmt::format("({})", comm())};
  std::istringstream stream(host.substr(end + 1));
  for (std::string field; stream >> field;) fields.push_back(field);
  const auto set = [&fields](std::size_t number, const std::string& value) {
    if (number < fields.size()) fields[number] = value;
  };
  set(20, std::to_string(sources_.threads().size()));
  set(23, std::to_string(sizes_of(sources_.maps()).mapped));
  set(39, "0");  // processor
  // Addresses of the home's own program.
  for (const std::size_t address : {26, 27, 28, 29, 30, 45, 46, 47, 48, 49, 50, 51}) {
    set(address, "0");
  }
  fields.erase(fields.begin());
  return fmt::format("{}\n", fmt::join(fields, " "));
}

std::string ProcFiles::statm() const {
  const Sizes sizes = sizes_of(sources_.maps());
  std::uint64_t size = 0, resident = 0, shared = 0;
  std::istringstream(read_text("/proc/self/statm")) >> size >> resident >> shared;
  return fmt::format("{} {} {} {} 0 {} 0\n", sizes.mapped / dsm::kPageSize, resident, shared,
                     sizes.code / dsm::kPageSize, sizes.writable / dsm::kPageSize);
}

}  // namespace xenspan::hypervisor::usermode
