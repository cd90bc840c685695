#include "dsm-rdma/transport/verbs/waiter.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include <cerrno>

namespace xenspan::dsm::verbs {
namespace {

bool add(int epoll, int fd, void* what, unsigned how) {
  epoll_event event{};
  event.events = how;
  event.data.ptr = what;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

Status Waiter::open(ibv_context* context, int entries) {
  channel_.reset(ibv_create_comp_channel(context));
  if (!channel_) return system_error(errno, "cannot make an RDMA completion channel");
  queue_.reset(ibv_create_cq(context, entries, nullptr, channel_.get(), 0));
  if (!queue_) {
    return system_error(errno,
                        fmt::format("cannot make an RDMA completion queue of {} entries", entries),
                        "raise the limit of locked memory (RLIMIT_MEMLOCK)");
  }
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  event_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const int flags = ::fcntl(channel_->fd, F_GETFL);
  // The channel is told apart by its own address; the event, edge-triggered, by null.
  if (!epoll_ || !event_ || ::fcntl(channel_->fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
      !add(epoll_.get(), event_.get(), nullptr, EPOLLIN | EPOLLET) ||
      !add(epoll_.get(), channel_->fd, channel_.get(), EPOLLIN)) {
    return system_error(errno, "cannot watch an RDMA completion channel",
                        "raise the limit of open files (RLIMIT_NOFILE)");
  }
  return {};
}

bool Waiter::watch(int fd, void* what) { return add(epoll_.get(), fd, what, EPOLLIN); }
void Waiter::unwatch(int fd) { ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

int Waiter::arm() noexcept {
  if (armed_) return 0;
  if (const int error = ibv_req_notify_cq(queue_.get(), 0)) return error;
  armed_ = true;
  return 0;
}

int Waiter::sleep(long timeout_us, void** ready) noexcept {
  epoll_event events[kMostReady];
  const timespec timeout{timeout_us / 1'000'000, timeout_us % 1'000'000 * 1000};
  const int count = ::epoll_pwait2(epoll_.get(), events, kMostReady,
                                   timeout_us < 0 ? nullptr : &timeout, nullptr);
  int others = 0;
  for (int i = 0; i < count; ++i) {
    if (events[i].data.ptr == nullptr) continue;
    if (events[i].data.ptr != channel_.get()) {
      ready[others++] = events[i].data.ptr;
      continue;
    }
    ibv_cq* queue;
    void* context;
    if (ibv_get_cq_event(channel_.get(), &queue, &context) != 0) continue;
    ibv_ack_cq_events(queue, 1);
    armed_ = false;
  }
  return count < 0 ? -1 : others;
}

void Waiter::signal() noexcept {
  const std::uint64_t one = 1;
  // It fails only when the counter is full, and then its reader is awake anyway.
  [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof one);
}

}  // namespace xenspan::dsm::verbs
