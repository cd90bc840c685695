// The daemon's one event loop: RAII around libevent.
//
// Everything in xenspand runs in this loop's thread; no object here may be touched by another
// thread. A Timer, FdWatch or SignalWatch stops when it is destroyed, and may be destroyed inside
// its own callback. An object that wants to delete its caller uses EventLoop::later, which runs a
// function after the current callbacks have returned.
#pragma once

#include <event2/event.h>

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

namespace xenspan::daemon {

class EventLoop {
 public:
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  event_base* base() const { return base_; }
  // Returns when stop() was called.
  void run();
  void stop();
  // Runs `work` once, from the loop, after the callbacks of this round.
  void later(std::function<void()> work);

 private:
  void run_later();

  event_base* base_;
  event* later_event_ = nullptr;
  std::vector<std::function<void()>> later_;
};

// Base of the three watches below: owns one libevent event and the function it calls.
class EventHandle {
 public:
  EventHandle(const EventHandle&) = delete;
  EventHandle& operator=(const EventHandle&) = delete;

 protected:
  EventHandle() = default;
  ~EventHandle();
  void install(EventLoop& loop, int fd, short what, std::function<void(short)> call,
               const timeval* timeout);

 private:
  static void fired(evutil_socket_t fd, short what, void* self);

  event* event_ = nullptr;
  std::function<void(short)> call_;
};

// Calls after `delay`; again and again when `repeat`.
class Timer : EventHandle {
 public:
  Timer(EventLoop& loop, std::chrono::milliseconds delay, std::function<void()> call,
        bool repeat = false);
};

// Calls whenever the descriptor is ready (EV_READ, EV_WRITE). The descriptor stays the caller's.
class FdWatch : EventHandle {
 public:
  FdWatch(EventLoop& loop, int fd, short what, std::function<void(short)> call);
};

class SignalWatch : EventHandle {
 public:
  SignalWatch(EventLoop& loop, int signal, std::function<void()> call);
};

}  // namespace xenspan::daemon
