#include "dom0-daemon/daemon/event_loop.h"

#include <new>
#include <utility>

namespace xenspan::daemon {

EventLoop::EventLoop() : base_(event_base_new()) {
  if (base_ == nullptr) throw std::bad_alloc();
  later_event_ = event_new(
      base_, -1, 0,
      [](evutil_socket_t, short, void* self) { static_cast<EventLoop*>(self)->run_later(); }, this);
  if (later_event_ == nullptr) throw std::bad_alloc();
}

EventLoop::~EventLoop() {
  later_.clear();
  event_free(later_event_);
  event_base_free(base_);
}

void EventLoop::run() { event_base_loop(base_, EVLOOP_NO_EXIT_ON_EMPTY); }

void EventLoop::stop() { event_base_loopbreak(base_); }

void EventLoop::later(std::function<void()> work) {
  later_.push_back(std::move(work));
  const timeval now{0, 0};
  event_add(later_event_, &now);
}

void EventLoop::run_later() {
  for (auto& work : std::exchange(later_, {})) work();
}

EventHandle::~EventHandle() {
  if (event_ != nullptr) event_free(event_);
}

void EventHandle::install(EventLoop& loop, int fd, short what, std::function<void(short)> call,
                          const timeval* timeout) {
  call_ = std::move(call);
  event_ = event_new(loop.base(), fd, what, &EventHandle::fired, this);
  if (event_ == nullptr) throw std::bad_alloc();
  event_add(event_, timeout);
}

void EventHandle::fired(evutil_socket_t, short what, void* self) {
  // A copy: the callback may destroy its own watch.
  const auto call = static_cast<EventHandle*>(self)->call_;
  call(what);
}

Timer::Timer(EventLoop& loop, std::chrono::milliseconds delay, std::function<void()> call,
             bool repeat) {
  const timeval after{static_cast<time_t>(delay.count() / 1000),
                      static_cast<suseconds_t>(delay.count() % 1000 * 1000)};
  install(
      loop, -1, repeat ? EV_PERSIST : 0, [call = std::move(call)](short) { call(); }, &after);
}

FdWatch::FdWatch(EventLoop& loop, int fd, short what, std::function<void(short)> call) {
  install(loop, fd, static_cast<short>(what | EV_PERSIST), std::move(call), nullptr);
}

SignalWatch::SignalWatch(EventLoop& loop, int signal, std::function<void()> call) {
  install(
      loop, signal, EV_SIGNAL | EV_PERSIST, [call = std::move(call)](short) { call(); }, nullptr);
}

}  // namespace xenspan::daemon
