// Process: a child program with pipes to its standard input and output; standard error is
// inherited. For the benchmark program, from its one thread. Owns the child: the destructor kills
// and collects what has not ended.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace xenspan::bench {

class Process {
 public:
  // Runs argv[0] (searched in PATH) on the given cores only (empty: all).
  static Result<Process> start(const std::vector<std::string>& argv,
                               const std::vector<int>& cores = {});
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) = delete;
  ~Process();

  Status write_line(const std::string& line);
  // Without the newline. Waits up to two minutes; an end of file is an error.
  Result<std::string> read_line();
  // Closes the child's input, reads what it still prints, waits. The exit status by the shell's
  // convention.
  struct End {
    int status = 0;
    std::string output;
  };
  End finish();

 private:
  Process(std::string name, pid_t pid, UniqueFd input, UniqueFd output);
  bool fill();
  int collect();  // the status as waitpid gives it

  std::string name_;
  pid_t pid_ = -1;
  UniqueFd input_, output_;
  std::string buffer_;
};

}  // namespace xenspan::bench
