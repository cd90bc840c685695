// The daemon's run directory, /run/xenspan/NAME: one xenspand at a time, whatever happened to the
// last one.
//
// A lock says who owns it; the kernel drops the lock with the process, so what a killed daemon left
// behind is removed by the next one. Threading: used once at start and once at the end.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dom0-daemon/daemon/daemon_config.h"

namespace xenspan::daemon {

class RunDirectory {
 public:
  static Result<std::unique_ptr<RunDirectory>> open(const Config& config);
  // Removes everything that this daemon put there.
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

 private:
  RunDirectory(const Config& config, UniqueFd lock);
  void remove_contents();

  const std::string path_;
  const std::string socket_;
  const std::string link_;  // RUNDIR/system, where the command line looks first; "" when RUNDIR is
                            // not the system's
  UniqueFd lock_;
};

}  // namespace xenspan::daemon
