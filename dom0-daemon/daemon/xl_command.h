// `xl`, Xen's own tool, run beside the loop: what is done to domains by a file is left to it.
//
// Threading: the loop's thread. The process is not ended with the object; nobody hears of its end
// then.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dom0-daemon/daemon/event_loop.h"

namespace xenspan::daemon {

class XlCommand {
 public:
  // An error's sentence is the last line that xl said.
  using OnEnd = std::function<void(Status status)>;
  // `on_end` comes later, once, and may destroy the object.
  static Result<std::unique_ptr<XlCommand>> start(EventLoop& loop, std::vector<std::string> words,
                                                  OnEnd on_end);
  ~XlCommand();
  XlCommand(const XlCommand&) = delete;
  XlCommand& operator=(const XlCommand&) = delete;

 private:
  XlCommand(EventLoop& loop, std::vector<std::string> words, OnEnd on_end)
      : loop_(loop), words_(std::move(words)), on_end_(std::move(on_end)) {}
  Status spawn();
  void read();
  void collect();

  EventLoop& loop_;
  const std::vector<std::string> words_;
  OnEnd on_end_;
  pid_t pid_ = -1;
  UniqueFd output_, pidfd_;
  std::string said_;
  std::unique_ptr<FdWatch> readable_, exit_;
};

}  // namespace xenspan::daemon
