// A completion queue and how its one reader sleeps until something arrives in it.
//
// A completion queue says "something came" on its channel only once and only when armed before. The
// reader polls in user memory as long as it likes; before it sleeps it arms the queue and looks
// once more. signal() wakes it for other reasons. Threading: poll(), look() and sleep() by the
// reader; signal() by any thread. Internal to transport/verbs.
#pragma once

#include <atomic>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dsm-rdma/transport/verbs/handles.h"

namespace xenspan::dsm::verbs {

class Waiter {
 public:
  Status open(ibv_context* context, int entries);
  ibv_cq* queue() const { return queue_.get(); }
  // Also wakes when this descriptor is readable; `what` is not null.
  bool watch(int fd, void* what);
  void unwatch(int fd);

  // Completions that are there now, at most `room`; negative: the queue is broken.
  int poll(ibv_wc* completions, int room) noexcept {
    return ibv_poll_cq(queue_.get(), room, completions);
  }
  // Before sleep(), with a poll() in between. 0 or an errno.
  int arm() noexcept;
  // At most this long (negative: for ever), or until something happens. The watched descriptors
  // that are ready, or -1 when it was interrupted.
  static constexpr int kMostReady = 16;
  int sleep(long timeout_us, void** ready) noexcept;

  // Wakes the reader. Any thread.
  void signal() noexcept;

 private:
  Handle<ibv_comp_channel> channel_;
  Handle<ibv_cq> queue_;
  UniqueFd epoll_, event_;
  bool armed_ = false;
};

}  // namespace xenspan::dsm::verbs
