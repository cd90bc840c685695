// Running other programs of this machine: ip(8), tc(8) and xenspand. Blocking; one thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace xenspan::cli {

// Runs it to its end; an error carries what it said.
Status run_program(const std::vector<std::string>& command);

// A process that outlives us, known by its id and its start time, so that a later process with the
// same id is never mistaken for it.
struct ProcessId {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  // clock ticks since boot
};
// Start time of a living process; 0 when there is none (or it is a zombie).
std::uint64_t process_start_time(pid_t pid);
bool is_alive(const ProcessId& process);
Result<ProcessId> read_pid_file(const std::string& path);

// Starts a daemon in the named network namespace (of /run/netns) with its output in `log_file`. Its
// pid file is written before it runs.
Status start_in_namespace(const std::string& name, const std::vector<std::string>& command,
                          const std::string& log_file, const std::string& pid_file);

// SIGTERM, and SIGKILL when that takes more than 5 s. Returns when it is gone.
void end_process(const ProcessId& process);

// The program of this name beside the running one, or at `installed`.
Result<std::string> find_program(const std::string& name, const std::string& installed);

}  // namespace xenspan::cli
