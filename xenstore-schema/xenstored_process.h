// XenstoredProcess: the xenstored of one host.
//
// On Xen (a control domain) it is the system's: nothing is started and socket_path() is "".
// Elsewhere this starts the machine's genuine xenstored, with libxenspan-noxen.so preloaded, in a
// directory of its own: several hosts on one machine each have one. Its nodes live in its memory
// and end with it.
//
// Used by xenspand's main thread, which owns the object and must be the thread that outlives it:
// the kernel kills xenstored when the thread that started it ends, so a killed xenspand leaves none
// behind. The owner must not reap it (no waitpid(-1)). Files in run_dir: socket, xenstored.pid,
// xenstored.log. Whoever holds a lock on run_dir runs there.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace xenspan::xenstore {

struct XenstoredOptions {
  // Made, with its parents, when missing. By convention /run/xenspan/HOST/xenstored.
  std::string run_dir;
  // "" finds the newest /usr/lib/xen-*/bin/xenstored.
  std::string binary;
  // "" finds it: $XENSPAN_NOXEN_LIBRARY, then the build tree of this program, then where `make
  // install` puts it.
  std::string library;
  // How long an earlier instance may take to vanish, and how long the new one to answer.
  std::chrono::milliseconds timeout{10000};
};

class XenstoredProcess {
 public:
  // Whether this is a control domain under Xen.
  static bool on_xen();
  // Returns when it answers. Errors name what is missing and the package or command that brings it.
  static Result<std::unique_ptr<XenstoredProcess>> start(const XenstoredOptions& options);
  // Stops it.
  ~XenstoredProcess();
  XenstoredProcess(const XenstoredProcess&) = delete;
  XenstoredProcess& operator=(const XenstoredProcess&) = delete;

  // For XenstoreStore::open and XENSTORED_PATH; "" for the system's.
  const std::string& socket_path() const { return socket_path_; }
  // 0 when it is the system's, or has been stopped.
  pid_t pid() const { return pid_; }
  // Becomes readable when xenstored ends (a pidfd, for the event loop); -1 when it is the system's.
  int exit_fd() const { return pidfd_.get(); }
  // SIGTERM, then SIGKILL; removes its files but the log. Nothing when it is the system's or
  // stopped already.
  void stop();

 private:
  XenstoredProcess() = default;
  Status launch(const std::string& binary, const std::string& library);
  Status wait_until_it_answers(std::chrono::milliseconds timeout);
  Error ended_early() const;
  bool wait_for_end(int milliseconds);

  std::string run_dir_;
  std::string socket_path_;
  pid_t pid_ = 0;
  UniqueFd pidfd_;
  UniqueFd lock_;  // the directory; xenstored holds the same lock, so it ends with the last of both
};

// The newest installed xenstored.
Result<std::string> find_xenstored();
Result<std::string> find_noxen_library();

}  // namespace xenspan::xenstore
