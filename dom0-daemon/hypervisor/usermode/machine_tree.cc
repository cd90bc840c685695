#include "dom0-daemon/hypervisor/usermode/machine_tree.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "base/unique_fd.h"

namespace xenspan::hypervisor::usermode {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHostCpus = "/sys/devices/system/cpu";
// The kernel's CONFIG_NR_CPUS - 1 on Debian.
constexpr const char* kKernelMax = "8191";

struct TreeFile {
  std::string name, text;
};

void write_file(const std::string& path, const std::string& text) {
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0444));
  if (!fd) return;
  [[maybe_unused]] const ssize_t written = ::write(fd.get(), text.data(), text.size());
}

void write_line(const std::string& directory, const char* name, const std::string& text) {
  write_file(directory + "/" + name, text + "\n");
}

void make_directory(const std::string& path) {
  std::error_code ignored;
  fs::create_directories(path, ignored);
}

// The plain files of a sysfs directory of the host that can be read.
std::vector<TreeFile> read_files(const std::string& directory) {
  std::vector<TreeFile> files;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, error)) {
    if (!entry.is_regular_file(error) || entry.path().filename() == "uevent") continue;
    std::ifstream stream(entry.path());
    std::ostringstream text;
    if (stream >> text.rdbuf()) files.push_back({entry.path().filename(), text.str()});
  }
  return files;
}

struct Cache {
  std::string name;  // index0 ..
  std::vector<TreeFile> files;
  bool common = false;  // to all processors of the package
};

// The caches of the host's first processor: a level 3 is common to the package, others belong to a
// core.
std::vector<Cache> read_caches() {
  std::vector<Cache> caches;
  const std::string directory = fmt::format("{}/cpu0/cache", kHostCpus);
  for (unsigned i = 0;; ++i) {
    Cache cache;
    cache.name = fmt::format("index{}", i);
    cache.files = read_files(directory + "/" + cache.name);
    if (cache.files.empty()) return caches;
    for (const TreeFile& file : cache.files) {
      if (file.name == "level") cache.common = std::stoul("0" + file.text) >= 3;
    }
    caches.push_back(std::move(cache));
  }
}

void write_caches(const std::vector<Cache>& caches, const std::string& directory, unsigned cpu,
                  unsigned count) {
  if (caches.empty()) return;
  const std::string own_list = fmt::format("{}", cpu), own_map = cpu_map_of(cpu, count);
  for (const Cache& cache : caches) {
    const std::string path = directory + "/cache/" + cache.name;
    make_directory(path);
    for (const TreeFile& file : cache.files) {
      if (file.name == "shared_cpu_list") {
        write_line(path, "shared_cpu_list", cache.common ? cpu_list(count) : own_list);
      } else if (file.name == "shared_cpu_map") {
        write_line(path, "shared_cpu_map", cache.common ? cpu_map(count) : own_map);
      } else if (file.name == "id") {
        write_line(path, "id", cache.common ? "0" : own_list);
      } else {
        write_file(path + "/" + file.name, file.text);
      }
    }
  }
}

void write_topology(const std::string& directory, unsigned cpu, unsigned count) {
  make_directory(directory);
  const std::string own_list = fmt::format("{}", cpu), own_map = cpu_map_of(cpu, count);
  const std::string all_list = cpu_list(count), all_map = cpu_map(count);
  write_line(directory, "core_id", own_list);
  write_line(directory, "physical_package_id", "0");
  write_line(directory, "die_id", "0");
  write_line(directory, "cluster_id", "65535");  // none
  for (const char* own : {"thread_siblings", "core_cpus", "cluster_cpus"}) {
    write_line(directory, own, own_map);
    write_line(directory, fmt::format("{}_list", own).c_str(), own_list);
  }
  for (const char* all : {"core_siblings", "package_cpus", "die_cpus"}) {
    write_line(directory, all, all_map);
    write_line(directory, fmt::format("{}_list", all).c_str(), all_list);
  }
}

void write_cpus(unsigned count, const std::string& directory) {
  make_directory(directory);
  for (const char* all : {"online", "possible", "present"}) {
    write_line(directory, all, cpu_list(count));
  }
  for (const char* none : {"offline", "isolated", "nohz_full"}) write_line(directory, none, "");
  write_line(directory, "kernel_max", kKernelMax);
  make_directory(directory + "/smt");
  write_line(directory + "/smt", "active", "0");
  write_line(directory + "/smt", "control", "notsupported");
  make_directory(directory + "/vulnerabilities");
  for (const TreeFile& file : read_files(fmt::format("{}/vulnerabilities", kHostCpus))) {
    write_file(directory + "/vulnerabilities/" + file.name, file.text);
  }
  const std::vector<Cache> caches = read_caches();
  for (unsigned cpu = 0; cpu < count; ++cpu) {
    const std::string own = fmt::format("{}/cpu{}", directory, cpu);
    write_topology(own + "/topology", cpu, count);
    write_caches(caches, own, cpu, count);
    write_line(own, "online", "1");
    std::error_code ignored;
    fs::create_directory_symlink("../../node/node0", own + "/node0", ignored);
  }
}

void write_nodes(const Machine& machine, const std::string& directory) {
  const std::string node = directory + "/node0";
  make_directory(node);
  for (const char* name : {"online", "possible", "has_cpu", "has_memory", "has_normal_memory"}) {
    write_line(directory, name, "0");
  }
  write_line(node, "cpulist", cpu_list(machine.vcpus));
  write_line(node, "cpumap", cpu_map(machine.vcpus));
  write_line(node, "distance", "10");
  const std::uint64_t kilobytes = machine.memory / 1024;
  write_file(node + "/meminfo", fmt::format("Node 0 MemTotal:       {:8} kB\n"
                                            "Node 0 MemFree:        {:8} kB\n"
                                            "Node 0 MemUsed:        {:8} kB\n",
                                            kilobytes, kilobytes, 0));
  write_file(node + "/numastat",
             "numa_hit 0\nnuma_miss 0\nnuma_foreign 0\ninterleave_hit 0\nlocal_node 0\n"
             "other_node 0\n");
  for (unsigned cpu = 0; cpu < machine.vcpus; ++cpu) {
    std::error_code ignored;
    fs::create_directory_symlink(fmt::format("../../cpu/cpu{}", cpu),
                                 fmt::format("{}/cpu{}", node, cpu), ignored);
  }
}

// Words of 32 bits, the highest first, as many digits in the first one as the number of processors
// needs.
std::string format_map(unsigned count, unsigned first, unsigned last) {
  std::string text;
  const unsigned words = (count + 31) / 32;
  for (unsigned word = words; word-- > 0;) {
    std::uint32_t bits = 0;
    for (unsigned bit = 0; bit < 32; ++bit) {
      const unsigned cpu = word * 32 + bit;
      if (cpu >= first && cpu <= last) bits |= std::uint32_t{1} << bit;
    }
    const unsigned used = word + 1 == words ? count - word * 32 : 32;
    text += fmt::format("{:0{}x}", bits, (used + 3) / 4);
    if (word != 0) text += ',';
  }
  return text;
}

}  // namespace

std::string cpu_list(unsigned count) { return count <= 1 ? "0" : fmt::format("0-{}", count - 1); }
std::string cpu_map(unsigned count) { return format_map(count, 0, count - 1); }
std::string cpu_map_of(unsigned cpu, unsigned count) { return format_map(count, cpu, cpu); }

void write_machine_tree(const Machine& machine, const std::string& directory) {
  write_cpus(machine.vcpus, directory + "/sys/devices/system/cpu");
  write_nodes(machine, directory + "/sys/devices/system/node");
}

}  // namespace xenspan::hypervisor::usermode
