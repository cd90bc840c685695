// How much of each core for vCPUs other work takes: what the kernel says of the core, minus the
// threads of the slices here.
//
// Looked at once a second, while a domain here wants to know (policy load). A thread's time counts
// on the core where it was last. Threading: the loop's thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace xenspan::daemon {

struct CoreTimes {
  std::uint64_t busy = 0, all = 0;  // clock ticks since boot
};
// Of /proc/stat's text, by core.
std::map<int, CoreTimes> core_times_from(std::string_view text);

struct TaskTimes {
  std::uint64_t busy = 0;  // clock ticks
  int core = 0;            // where it was last
};
// Of a /proc/PID/task/TID/stat's text.
std::optional<TaskTimes> task_times_from(std::string_view text);

class CoreLoad {
 public:
  explicit CoreLoad(std::vector<int> cores) : cores_(std::move(cores)) {}

  // `own`: the slices' processes; none: nobody wants to know.
  void look(const std::vector<pid_t>& own);
  // In 1/1000 of each core, between the last two looks; empty when that is not known.
  const std::vector<int>& others() const { return others_; }

 private:
  const std::vector<int> cores_;
  std::map<int, CoreTimes> before_;
  std::map<std::pair<pid_t, pid_t>, std::uint64_t> tasks_;  // busy, by process and thread
  std::vector<int> others_;
};

}  // namespace xenspan::daemon
