// The files by which programs learn about their machine, as the domain has it:
// /sys/devices/system/cpu/**, /proc/cpuinfo, /proc/stat, /proc/meminfo,
// /proc/self/{maps,exe,cmdline,status,stat,statm,environ,...} with the domain's vCPU count and
// layout.
//
// The home's I/O asks before every path-taking call. Threading: resolve() from any thread; the
// callbacks may be called from any thread. Not here, so the home's own: mounts, mountinfo, limits,
// cgroup, fd, cwd, root, and all of /sys/fs/cgroup (a domain's use is bounded by its placement and
// --memory, not by a cgroup of the home).
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace xenspan::hypervisor::usermode {

class ProcFiles {
 public:
  struct Sources {
    unsigned vcpus = 1;
    std::uint64_t memory = 0;  // bytes, the domain's
    std::string program;       // absolute path of the executable
    std::vector<std::string> arguments, environment;
    std::string auxv;  // Entry::auxv; when empty, /proc/self/auxv is the home's own
    int pid = 0;       // what getpid() says in the guest
    // Private directory for generated trees: exists, is writable, is removed by its owner.
    std::string directory;
    std::function<std::string()> maps;          // /proc/self/maps now
    std::function<std::vector<int>()> threads;  // thread ids now, for /proc/self/task and Threads:
  };
  explicit ProcFiles(Sources sources);  // generates the static trees under sources.directory

  struct Answer {
    enum Kind { kRedirect, kContents, kLink } kind;
    // kRedirect: the path to use instead; kContents: the file's bytes; kLink: readlink's text.
    std::string text;
  };
  // `path` absolute and normalised by the caller ("/proc/self/..", "/proc/<pid>/.." and
  // "/proc/thread-self/.." are the same thing). nullopt: not ours, use the path as it is. kLink:
  // readlink and lstat see a link, every other call goes to the file it names.
  std::optional<Answer> resolve(const std::string& path) const;

 private:
  std::optional<Answer> resolve_process(const std::string& name, int thread, bool real) const;
  std::optional<Answer> resolve_task(const std::string& rest) const;
  bool is_thread(int id) const;
  std::string task_directory() const;
  std::string comm() const;
  std::string cpu_times() const;
  std::string cpu_info() const;
  std::string memory_info() const;
  std::string status(int thread) const;
  std::string stat(int thread) const;
  std::string statm() const;

  Sources sources_;
  std::string program_;  // sources_.program without symbolic links
  mutable std::mutex task_mutex_;
};

}  // namespace xenspan::hypervisor::usermode
