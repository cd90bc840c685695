// One interface between the engine and a wire; implementations in tcp/, verbs/ and sim/.
//
// The shape is that of RDMA: a page is placed into the receiver's registered frame by the sender
// (write with immediate), then the message is delivered. Small messages are 64 bytes. TCP does the
// same with recv() into the frame.
//
// Lanes. A slice has `lanes` lanes to all its peers. Lane 0 belongs to the service thread:
// requests, forwards and invalidations from peers arrive there (and on the peers' ends of *their*
// lanes), and serve() reads them all. Lane k >= 1 is lent to one faulting thread at a time
// (borrow/give_back); the answers to the request it sends on that lane come back on it and are read
// by that thread alone in wait(): no hop through the service thread. Between any two lanes there is
// no order; within one lane and direction messages arrive in the order sent.
//
// Threading: send() from any thread. wait(lane) from the thread that borrowed the lane. serve()
// from one thread. No allocation and no lock shared between lanes in send(), wait(), borrow(),
// give_back().
#pragma once

#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <string>

#include "dsm-rdma/ivy/message.h"
#include "dsm-rdma/requests.h"
#include "dsm-rdma/wire.h"

namespace xenspan::dsm {

// A message on its way out, or a run of them, and the 4096 bytes that follow it (payload kPage) or
// nullptr.
struct Outgoing {
  wire::Run run;
  const std::byte* page;
};

// A message that has come, and where its page (payload kPage) lies until deliver_several()
// returns, or nullptr.
struct Incoming {
  ivy::Message message;
  const std::byte* page;
};

// Room for messages that come together; nothing is cleared. On the receiver's stack.
template <std::size_t kMost>
class Arrivals {
 public:
  Arrivals() noexcept {}
  Arrivals(const Arrivals&) = delete;
  Arrivals& operator=(const Arrivals&) = delete;

  std::size_t room() const noexcept { return kMost - count_; }
  std::size_t count() const noexcept { return count_; }
  const Incoming* all() const noexcept { return all_; }
  // Only where there is room.
  void add(const ivy::Message& message, const std::byte* page) noexcept {
    std::construct_at(all_ + count_++, Incoming{message, page});
  }
  void clear() noexcept { count_ = 0; }

 private:
  union {
    Incoming all_[kMost];
  };
  std::size_t count_ = 0;
};

// Where received messages go. Implemented by the engine, one object for each receiving thread;
// called from wait() and serve().
class Sink {
 public:
  virtual ~Sink() = default;
  // A kGrant with payload kPage is arriving: the frame its 4096 bytes go to, or nullptr to refuse
  // them (the connection is then treated as broken by its peer).
  virtual std::byte* place(const ivy::Message& grant) noexcept = 0;
  // A whole message; a page, if any, is in its frame. false: no correct peer sends this (same
  // consequence).
  virtual bool deliver(const ivy::Message& message) noexcept = 0;
  // Several that have come together, in order; pages are still to be copied into their frames.
  virtual bool deliver_several(const Incoming* incoming, std::size_t count) noexcept {
    for (const Incoming* each = incoming; each != incoming + count; ++each) {
      if (each->page != nullptr) {
        std::byte* const frame = place(each->message);
        if (frame == nullptr) return false;
        std::memcpy(frame, each->page, kPageSize);
      }
      if (!deliver(each->message)) return false;
    }
    return true;
  }
  // What was there to receive has been delivered: what it set off is to be sent now. Called before
  // the receiver looks for more, and before it leaves.
  virtual void flush() noexcept = 0;
  // A peer's connection is gone (closed, reset, timed out, broke the protocol). Called once a peer.
  // `why` is a sentence.
  virtual void peer_lost(HostId peer, const char* why) noexcept = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;

  // RDMA registers [base, base + bytes) once; frame(gfn) lies at base + gfn * 4096. TCP ignores it.
  virtual int register_frames(std::byte* base, std::size_t bytes) noexcept = 0;

  // How many requests that no thread waits for may be under way: their answers all come to lane 0.
  // A multiple of 64; constant.
  virtual unsigned most_ahead() const noexcept { return Requests::kFewAheadPlaces; }

  // Sends to message.to. Which connection: a request of a borrowed lane (kReadRequest,
  // kWriteRequest with message.lane
  // >= 1 and from == requester) goes on that lane, and so may a forward or an invalidation with
  // from == requester (its manager is the same host); kGrant and kInvalidateAck go back on lane
  // message.lane of message.to; everything else on lane 0. `page` is 4096 bytes (payload kPage) or
  // nullptr; it is no longer referred to when send returns. Returns 0 or an errno (the peer is then
  // also reported to peer_lost).
  virtual int send(const ivy::Message& message, const std::byte* page) noexcept = 0;
  // Sends several messages, to any hosts and in any order; those that go the same way travel
  // together where possible, and as runs (wire.h). Returns 0, or the errno of the first that failed
  // (`failed` is its index); of the rest some may not have been sent then.
  virtual int send_several(const Outgoing* messages, std::size_t count,
                           std::size_t& failed) noexcept {
    for (failed = 0; failed < count; ++failed) {
      const wire::Run& run = messages[failed].run;
      for (unsigned i = 0; i < run.count; ++i) {
        if (const int error = send(run.at(i), messages[failed].page)) return error;
      }
    }
    return 0;
  }

  // Borrows a free lane >= 1, or kServiceLane when all are lent (answers then come through the
  // service thread).
  virtual Lane borrow() noexcept = 0;
  virtual void give_back(Lane lane) noexcept = 0;

  // Receives on a borrowed lane until `done(context)`; spins briefly, then blocks. Returns 0, or
  // ECANCELED after stop().
  virtual int wait(Lane lane, Sink& sink, bool (*done)(void*), void* context) noexcept = 0;
  // Makes wait() on this lane, if a thread is in it, look at done() again: a request may also be
  // completed by another thread (its manager is this host and the page comes back by the service
  // thread). Any thread.
  virtual void wake(Lane /*lane*/) noexcept {}

  // This peer has left the domain: its connections are closed here, and their end is no loss. What
  // it still sends is not looked at. Any thread.
  virtual void remove_peer(HostId /*peer*/) noexcept {}

  // The epoch of all messages from now on (wire.h): when nothing is under way to or from anybody,
  // and before anything is again. Any thread.
  virtual void enter_epoch(Epoch /*epoch*/) noexcept {}

  // The service thread's body: receives everything that is not for a borrowed lane until stop().
  // Between messages it calls idle(), which returns the microseconds until it wants to be called
  // again (negative: no wish).
  virtual void serve(Sink& sink, const std::function<long()>& idle) = 0;
  // Makes serve() call idle() soon. Any thread.
  virtual void nudge() noexcept = 0;
  // The same, but not before `due_ns` (now_ns()) where that can be had: a service thread that is
  // woken at once takes the processor from the vCPU that is to use its page now. Any thread.
  virtual void nudge_at([[maybe_unused]] std::uint64_t due_ns) noexcept { nudge(); }
  // Ends serve() and every wait(). Any thread, any number of times.
  virtual void stop() noexcept = 0;

  struct Traffic {
    // A run counts as one message.
    std::uint64_t messages_sent, messages_received, pages_sent, pages_received, bytes_sent,
        bytes_received;
  };
  virtual Traffic traffic() const noexcept = 0;
};

}  // namespace xenspan::dsm
