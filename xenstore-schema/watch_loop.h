// WatchLoop: drives a store's watches from a libevent loop. Needs libevent's headers; the rest of
// this room does not.
//
// Used by xenspand's main thread, which owns the event_base, the store and this object. Both must
// outlive it.
#pragma once

#include <event2/event.h>

#include <functional>
#include <memory>
#include <utility>

#include "xenstore-schema/store.h"

namespace xenspan::xenstore {

class WatchLoop {
 public:
  using ErrorCallback = std::function<void(const Error&)>;

  // Watch callbacks run in base's thread from now on. on_error hears of a broken store.
  static Result<std::unique_ptr<WatchLoop>> start(event_base* base, Store& store,
                                                  ErrorCallback on_error) {
    auto loop = std::unique_ptr<WatchLoop>(new WatchLoop(store, std::move(on_error)));
    loop->event_.reset(
        event_new(base, store.fd(), EV_READ | EV_PERSIST, &WatchLoop::on_readable, loop.get()));
    if (!loop->event_ || event_add(loop->event_.get(), nullptr) != 0) {
      return Error{ENOMEM, "cannot add xenstore's watches to the event loop"};
    }
    return loop;
  }
  WatchLoop(const WatchLoop&) = delete;
  WatchLoop& operator=(const WatchLoop&) = delete;

 private:
  struct FreeEvent {
    void operator()(event* e) const { event_free(e); }
  };

  WatchLoop(Store& store, ErrorCallback on_error) : store_(store), on_error_(std::move(on_error)) {}

  static void on_readable(evutil_socket_t, short, void* self) {
    auto& loop = *static_cast<WatchLoop*>(self);
    // A copy: a callback may destroy this loop.
    const ErrorCallback on_error = loop.on_error_;
    if (Status status = loop.store_.process(); !status && on_error) on_error(status.error());
  }

  Store& store_;
  ErrorCallback on_error_;
  std::unique_ptr<event, FreeEvent> event_;
};

}  // namespace xenspan::xenstore
