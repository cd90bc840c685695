// The protocol state machine: pure and deterministic. Local events and messages in; messages and
// page actions out.
//
// It touches no frame, no clock, no lock and no socket, so the same code runs in the product, under
// the explorer that tries every interleaving and under the simulator. One PageState a gfn; the
// caller serialises calls for one gfn (the engine holds the page's lock bit) and carries out the
// Steps in order before it lets go of that gfn. A zeroed PageState is the start state: the home
// holds the page exclusively, manager entry says so, contents are zero.
// A page is a PageState (up to 64 hosts: what the engine uses) or a WidePageState (up to 1024): one
// machine, made for both.
#pragma once

#include <cstdint>
#include <memory>

#include "dsm-rdma/ivy/message.h"

namespace xenspan::dsm::ivy {

struct PageState;

struct Step {
  enum class Kind : std::uint8_t {
    kWithdraw,     // take the page out of the guest's mapping; no vCPU here can touch it afterwards
    kProtect,      // make the mapping read-only
    kDropFrame,    // contents are no longer needed here: memory may be given back, frame reads as
                   // zero
    kGrantShared,  // map read-only
    kGrantExclusive,  // map read-write
    kSend,  // send `message`; payload kPage: read the frame now (sender may turn an all-zero page
            // into kZero)
    kComplete,  // the local request (txn in message.txn) is over: wake whoever waits for this gfn
  };
  Kind kind{};
  Message message{};
};

// Steps of one event, in order. Room for an invalidation to every host and a few actions; never
// allocates. Not initialised: one lives on the stack of every fault, and most faults have three
// steps.
class Steps {
 public:
  Steps() noexcept : first_(steps_) {}
  Steps(const Steps&) = delete;
  Steps& operator=(const Steps&) = delete;
  void clear() { size_ = 0; }
  void push(Step::Kind kind, const Message& message = {}) {
    std::construct_at(first_ + size_++, Step{kind, message});
  }
  const Step* begin() const { return first_; }
  const Step* end() const { return first_ + size_; }
  std::size_t size() const { return size_; }

 protected:
  explicit Steps(Step* room) noexcept : first_(room) {}

 private:
  Step* const first_;
  union {
    Step steps_[kMaxHosts + 16];
  };
  std::size_t size_ = 0;
};

// Room for the invalidations of a wide domain. 40 KiB: not for a fault's stack.
class WideSteps : public Steps {
 public:
  WideSteps() noexcept : Steps(room_) {}

 private:
  union {
    Step room_[1024 + 16];
  };
};

struct View {  // what a machine knows beside the page
  HostId self = 0;
  HostId home = 0;  // kNoHost: it has left, and a page's manager gives away what nobody has touched
  HostId manager = 0;  // of this gfn, from the slot table
  // With a WidePageState, at the manager: the copyset of this gfn, kRowWords words, zero at first.
  // Guarded and owned like the page itself; unused elsewhere.
  std::uint64_t* row = nullptr;
  Moves moves = 0;        // of this gfn's slot, when that manager got it
  bool arriving = false;  // self is the manager, and rows may still come from the one before
  bool frozen = false;    // a host has died: nothing new is asked for (rebuild.h)
};

enum class FaultStart : std::uint8_t {
  kHeld,     // the right is held already: Steps hold the grant to (re)install, nothing else
  kStarted,  // a request went out; wait for kComplete
  kPending,  // another local request for this gfn is under way: wait for its kComplete, then ask
             // again; or View::frozen: ask again when it is not
};

enum class Verdict : std::uint8_t {
  kAccepted,
  kEarly,      // it is about a right that this host is still waiting for, or overtook a read
               // forward: nothing changed, no step; to be given to the machine again after the next
               // message for this page that was accepted
  kDuplicate,  // seen before or for a request that is over: ignored, no step
  kIllegal,    // no correct peer sends this in this state: nothing changed, no step
};

// A vCPU here wants `wanted`. Self-addressed messages are NOT looped inside: they appear as kSend
// to self, and the caller feeds them back (after the steps before them), so that checkers can
// interleave there too.
template <typename Page>
FaultStart on_fault(Page& page, const View& view, Gfn gfn, Right wanted, bool discard, Lane lane,
                    std::uint32_t txn, Steps& steps) noexcept;

// A message for view.self. For kGrant with payload the frame already holds the contents.
template <typename Page>
Verdict on_message(Page& page, const View& view, const Message& message, Steps& steps) noexcept;

// Whether on_message would accept this kGrant's contents: the transport asks before it lets bytes
// into a frame.
template <typename Page>
bool expects_contents(const Page& page, const View& view, const Message& grant) noexcept;

// The host wants to have nothing to do with this page any more. kStarted: a read copy, which goes
// with the next kComplete, or turns out to be the owner's (then the right is still held, and
// another host has to ask for it); until then the page counts as pending. kPending: a request is
// under way. kHeld: nothing to release; the right is exclusive, or there is none.
template <typename Page>
FaultStart on_release(Page& page, const View& view, Gfn gfn, std::uint32_t txn,
                      Steps& steps) noexcept;

// The manager gives its row of this page away: a kRow for `to`, or false when the page has none (it
// is as at the start). view.manager is somebody else already. PageState only.
bool take_row(PageState& page, const View& view, Gfn gfn, HostId to, Message& row) noexcept;

// The right this slice holds now.
template <typename Page>
Right right_of(const Page& page, const View& view) noexcept;

}  // namespace xenspan::dsm::ivy
