// The files by which programs learn about their machine, as the domain has it: /sys/devices/system/cpu/**, /proc/cpuinfo,
// /proc/stat, /proc/meminfo, /proc/self/{maps,exe,cmdline,status,stat,statm,environ,...} with the domain's vCPU count and layout.
//
// The home's I/O asks before every path-taking call. Threading: resolve() from any thread; the callbacks may be called
// from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace xenspan::hypervisor::usermode {

class ProcFiles {
 public:
  struct Sources {
    unsigned vcpus = 1;
    std::uint64_t memory = 0;                 // bytes, the domain's
    std::string program;                      // absolute path of the executable
    std::vector<std::string> arguments, environment;
    int pid = 0;                              // what getpid() says in the guest
    std::string directory;                    // private directory for generated trees (exists, writable, removed by owner)
    std::function<std::string()> maps;        // /proc/self/maps now
    std::function<std::vector<int>()> threads;  // thread ids now, for /proc/self/task and Threads:
  };
  explicit ProcFiles(Sources sources);  // generates the static trees under sources.directory

  struct Answer {
    enum Kind { kRedirect, kContents, kLink } kind;
    std::string text;  // kRedirect: the path to use instead; kContents: the file's bytes; kLink: readlink's text
  };
  // `path` absolute and normalised by the caller ("/proc/self/..", "/proc/<pid>/.." and "/proc/thread-self/.." are the
  // same thing). nullopt: not ours, use the path as it is.
  std::optional<Answer> resolve(const std::string& path) const;

 private:
  Sources sources_;
};

}  // namespace xenspan::hypervisor::usermode
