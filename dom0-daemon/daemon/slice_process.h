// One slice worker on this host: the process `xenspan-slice` and the socket over which it is told
// what to do (dom0-daemon/slice/control.md).
//
// The worker dies with this daemon, whatever the reason: the kernel kills it (PR_SET_PDEATHSIG) and
// its socket closes; one for Xen stays until it has paused its guest. Threading: the loop's thread.
// Ownership: LocalSlices owns it; destroying it kills a worker that still runs.
#pragma once

#include <sys/types.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dom0-daemon/daemon/event_loop.h"
#include "dom0-daemon/daemon/json_fields.h"

namespace xenspan::daemon {

// How a worker's process ended.
struct SliceEnd {
  bool by_signal = false;
  int number = 0;       // signal or exit status
  bool wanted = false;  // the daemon had asked it to stop, or killed it
};
std::string slice_end_text(const SliceEnd& end);  // "its slice ended with signal 9"

class SliceProcess {
 public:
  using OnEvent = std::function<void(Json event)>;
  using OnEnd = std::function<void(SliceEnd end)>;

  // The end is reported once, after the last event.
  static Result<std::unique_ptr<SliceProcess>> start(EventLoop& loop, const std::string& program,
                                                     OnEvent on_event, OnEnd on_end);
  SliceProcess(const SliceProcess&) = delete;
  SliceProcess& operator=(const SliceProcess&) = delete;
  ~SliceProcess();

  pid_t pid() const { return pid_; }
  // Queues one packet; the descriptors travel with it. An error when it is larger than a packet may
  // be.
  Status send(const Json& message, std::vector<UniqueFd> fds = {});
  // Asks it to end; kills it after 2 s.
  void stop(const std::string& cause);

 private:
  struct Packet {
    std::string text;
    std::vector<UniqueFd> fds;
  };

  SliceProcess(EventLoop& loop, OnEvent on_event, OnEnd on_end)
      : loop_(loop), on_event_(std::move(on_event)), on_end_(std::move(on_end)) {}
  Status spawn(const std::string& program);
  void flush();
  bool send_now(const Packet& packet);
  void receive();
  void collect();

  EventLoop& loop_;
  OnEvent on_event_;
  OnEnd on_end_;
  pid_t pid_ = -1;
  UniqueFd socket_;
  UniqueFd pidfd_;
  bool stopping_ = false;
  bool ended_ = false;
  std::deque<Packet> queue_;
  std::vector<char> buffer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::unique_ptr<FdWatch> readable_;
  std::unique_ptr<FdWatch> writable_;
  std::unique_ptr<FdWatch> exit_;
  std::unique_ptr<Timer> kill_timer_;
};

// The worker program: the configured one, or the one beside this daemon, or the installed one.
Result<std::string> find_slice_program(const std::string& configured);

}  // namespace xenspan::daemon
