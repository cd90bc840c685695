// What a message does here: the machine is asked, and its steps are carried out in order, under the
// page's lock.
#include <fmt/format.h>
#include <pthread.h>

#include <cerrno>
#include <cstring>

#include "dsm-rdma/engine_window.h"
#include "dsm-rdma/wire.h"
#include "dsm-rdma/zero_page.h"

namespace xenspan::dsm {

namespace {

// A page that was written a while ago is in memory, not in a cache: all its lines are on their way
// here, at the same time, while the messages around it are dealt with. The kernel's copy would wait
// for one after the other.
void fetch_lines(const std::byte* page) {
  constexpr std::size_t kLine = 64;
  for (std::size_t at = 0; at < kPageSize; at += kLine) __builtin_prefetch(page + at, 0, 2);
}

}  // namespace

std::byte* EngineCore::place(const ivy::Message& grant) noexcept {
  if (grant.gfn >= table_.pages()) return nullptr;
  PageEntry& entry = table_[grant.gfn];
  const std::lock_guard guard(entry);
  if (!awaits(entry, grant)) return nullptr;
  entry.set_touched();
  return backend_.frame(grant.gfn);
}

// With the page's lock held: whether the contents that come with this grant were asked for.
bool EngineCore::awaits(const PageEntry& entry, const ivy::Message& grant) const noexcept {
  return requests_.under_way(grant.txn) &&
         ivy::expects_contents(entry.state, view(grant.gfn), grant);
}

bool EngineCore::deliver(const ivy::Message& message, Outbox& outbox) noexcept {
  if (ended()) return true;
  if (ivy::is_about_members(message.kind)) return deliver_membership(message, outbox);
  if (message.gfn >= table_.pages()) return false;
  PageEntry& entry = table_[message.gfn];
  const std::lock_guard guard(entry);
  return deliver_one(entry, {message, nullptr}, false, outbox);
}

bool EngineCore::feed(PageEntry& entry, const ivy::Message& first, bool may_hold, Outbox& outbox,
                      bool mapped) noexcept {
  Event event(outbox, mapped);
  ivy::Steps steps;
  event.push(first);
  return feed_all(entry, event, steps, may_hold);
}

// `may_hold` is about the first message: one that has had its time in the queue is not put there
// again.
bool EngineCore::feed_all(PageEntry& entry, Event& event, ivy::Steps& steps,
                          bool may_hold) noexcept {
  ivy::Message message;
  for (; event.pop(message); may_hold = true) {
    if (may_hold && hold_back(entry, message)) continue;
    if (message.kind == ivy::Kind::kReleased) releases_.fetch_sub(1);
    if (is_late(message)) continue;
    if (!event.mapped()) clear_contents(entry, message);
    steps.clear();
    const ivy::Verdict verdict = ivy::on_message(entry.state, view(message.gfn), message, steps);
    if (verdict == ivy::Verdict::kEarly) {
      if (!park(entry, message)) return false;
      continue;
    }
    if (verdict == ivy::Verdict::kIllegal) {
      stop(fmt::format(
          "host {} sent host {} a {} for page {} that the protocol does not allow there",
          name_of(message.from), name_of(config_.self), wire::name_of(message.kind), message.gfn));
      return false;
    }
    if (verdict == ivy::Verdict::kDuplicate) continue;
    count(message);
    if (!carry_out(entry, steps, event)) return false;
    if (message.kind == ivy::Kind::kReleased && message.right == Right::kShared)
      offer(message.gfn, event.outbox());
    if (entry.parked() && !release_parked(entry, message.gfn, event)) return false;
  }
  return true;
}

// What a host sent that has died since; or an answer to a request of ours that is over. The machine
// knows the last one's number only in part (ivy/page_state.h).
bool EngineCore::is_late(const ivy::Message& message) const noexcept {
  if (is_lost(message.from)) return true;
  return (message.kind == ivy::Kind::kGrant || message.kind == ivy::Kind::kInvalidateAck ||
          message.kind == ivy::Kind::kReleased) &&
         message.requester == config_.self && !requests_.under_way(message.txn);
}

void EngineCore::count(const ivy::Message& message) noexcept {
  switch (message.kind) {
    case ivy::Kind::kReadForward: counters_.served_reads.add(); break;
    case ivy::Kind::kWriteForward: counters_.served_writes.add(); break;
    case ivy::Kind::kInvalidate: counters_.invalidations.add(); break;
    case ivy::Kind::kGrant:
      if (message.payload != ivy::Payload::kNone) requests_.given(message.txn, message.from, true);
      break;
    case ivy::Kind::kInvalidateAck: requests_.given(message.txn, message.from, false); break;
    default: break;
  }
}

// A message about a right that this host is still waiting for.
bool EngineCore::park(PageEntry& entry, const ivy::Message& message) noexcept {
  entry.set_parked(true);
  if (parked_.push(message)) return true;
  stop(fmt::format("host {} sent host {} more messages than its requests allow",
                   name_of(message.from), name_of(config_.self)));
  return false;
}

// The page has got further: what was parked is looked at again, after the page's hold window. What
// is still early then is parked again.
bool EngineCore::release_parked(PageEntry& entry, Gfn gfn, Event& event) noexcept {
  entry.set_parked(false);
  const std::uint64_t until = held_.keep_until(gfn);
  bool held = false;
  for (ivy::Message message; parked_.pop(gfn, message);) {
    // Where the queue has no room, the window counts less than that nothing is forgotten; what is
    // more than one event takes is left to the service thread.
    if (until != 0 && held_.push(message, until)) {
      held = true;
    } else if (event.push(message)) {
      continue;
    } else if (held_.push(message, 0)) {
      held = true;
    } else {
      parked_left_.store(true);
      transport_.nudge();
      return park(entry, message);
    }
  }
  if (!held) return true;
  counters_.held_back.add();
  predictor_.on_contention(gfn, now_ns());
  if (!serving()) transport_.nudge_at(until);
  return true;
}

// A page that was granted here a moment ago is kept for the rest of its window, so that the vCPU
// that asked for it gets to use it. Until when; 0: the message is served at once.
std::uint64_t EngineCore::hold_until(const PageEntry& entry,
                                     const ivy::Message& message) const noexcept {
  const bool takes =
      message.kind == ivy::Kind::kWriteForward || message.kind == ivy::Kind::kInvalidate;
  const bool weakens = message.kind == ivy::Kind::kReadForward &&
                       ivy::right_of(entry.state, view(message.gfn)) == Right::kExclusive;
  return takes || weakens ? held_.keep_until(message.gfn) : 0;
}

// The service thread delivers the message when the window is over.
bool EngineCore::hold_back(const PageEntry& entry, const ivy::Message& message) noexcept {
  const std::uint64_t until = hold_until(entry, message);
  if (until == 0 || !held_.push(message, until)) return false;
  counters_.held_back.add();
  predictor_.on_contention(message.gfn, now_ns());
  // The service thread looks at the queue after each message anyway.
  if (!serving()) transport_.nudge_at(until);
  return true;
}

// The service thread, between messages: microseconds until it is needed again.
long EngineCore::serve_held(Inbox& inbox) noexcept {
  ivy::Message message;
  long wait_ns = -1;
  while (!ended()) {
    const HoldQueue::Due due = held_.pop_due(message, wait_ns);
    if (due == HoldQueue::Due::kNothing) break;
    if (due == HoldQueue::Due::kReminder) {
      do ask_again(message, inbox.outbox());
      while (held_.pop_with(message));
      continue;
    }
    PageEntry& entry = table_[message.gfn];
    const std::lock_guard guard(entry);
    feed(entry, message, false, inbox.outbox());
  }
  if (parked_left_.load(std::memory_order_relaxed) && parked_left_.exchange(false))
    look_at_parked(inbox.outbox());
  serve_slots(inbox.outbox());
  inbox.flush();
  rounds_.fetch_add(1);
  return wait_ns < 0 ? -1 : wait_ns / 1000 + 1;
}

// A grant without bytes of a page that is all zero: the frame has to be so before the machine sees
// the message.
void EngineCore::clear_contents(PageEntry& entry, const ivy::Message& grant) noexcept {
  if (grant.kind != ivy::Kind::kGrant || grant.payload != ivy::Payload::kZero || !entry.touched())
    return;
  if (!ivy::expects_contents(entry.state, view(grant.gfn), grant)) return;
  if (requests_.is_discard(grant.txn)) return;  // grant() gives the frame back
  if (std::byte* frame = backend_.frame(grant.gfn)) {
    std::memset(frame, 0, kPageSize);
  } else {
    backend_failed(ENOMEM, "be cleared", grant.gfn);
  }
}

bool EngineCore::carry_out(PageEntry& entry, const ivy::Steps& steps, Event& event) noexcept {
  bool withdrawn = false;
  for (const ivy::Step& step : steps) {
    const Gfn gfn = step.message.gfn;
    int error = 0;
    switch (step.kind) {
      case ivy::Step::Kind::kWithdraw:
        withdrawn = true;
        predictor_.on_lost(gfn);
        migratory_.on_lost(gfn);
        held_.lost(gfn);
        ask_later(step.message);
        if (!event.take_mapped() && entry.touched()) error = backend_.withdraw(gfn);
        if (error != 0) return backend_failed(error, "be taken from the guest", gfn);
        break;
      case ivy::Step::Kind::kProtect:
        predictor_.on_lost(gfn);
        migratory_.on_shared(gfn);
        held_.lost(gfn);
        ask_later(step.message);
        if (!event.take_mapped() && entry.touched()) error = backend_.protect(gfn);
        if (error != 0) return backend_failed(error, "be made read-only", gfn);
        break;
      case ivy::Step::Kind::kDropFrame:
        if (!drop_for(entry, step.message, withdrawn, event.outbox())) return false;
        break;
      case ivy::Step::Kind::kGrantShared:
        if (!grant(entry, step.message, Right::kShared, event.take_mapped())) return false;
        break;
      case ivy::Step::Kind::kGrantExclusive:
        if (!grant(entry, step.message, Right::kExclusive, event.take_mapped())) return false;
        break;
      case ivy::Step::Kind::kSend:
        if (!send(entry, step.message, event)) return false;
        break;
      case ivy::Step::Kind::kComplete: complete(step.message); break;
    }
  }
  return !withdrawn || drop_lost(entry, steps.begin()->message.gfn);
}

// Nobody will ask for these contents here again, and they have been sent (send()).
bool EngineCore::drop_lost(PageEntry& entry, Gfn gfn) noexcept {
  if (backend_.keeps_lost_frames() || backend_.frames_keep_still()) return true;
  return ivy::right_of(entry.state, view(gfn)) != Right::kInvalid || drop(entry, gfn, true);
}

// Out of the guest and empty: the page is untouched again.
bool EngineCore::drop(PageEntry& entry, Gfn gfn, bool withdrawn) noexcept {
  if (!entry.touched()) return true;
  int error = withdrawn ? 0 : backend_.withdraw(gfn);
  if (error == 0) error = backend_.drop_frame(gfn);
  if (error != 0) return backend_failed(error, "be given back", gfn);
  entry.clear_touched();
  return true;
}

// A discard by another host may come while the page's last contents wait in an outbox, for a reader
// whose turn was before. If that outbox is another thread's, the frame keeps its memory: it counts
// as touched, and whatever comes into it later replaces all of it.
bool EngineCore::drop_for(PageEntry& entry, const ivy::Message& about, bool withdrawn,
                          Outbox& outbox) noexcept {
  bool good = true;
  if (!may_drop(about.requester == config_.self, outbox, good)) return good;
  return drop(entry, about.gfn, withdrawn);
}

// `own`: it is this host that discards. `good`: false when the engine has failed.
bool EngineCore::may_drop(bool own, Outbox& outbox, bool& good) noexcept {
  if (own) return true;
  good = outbox.pages() == 0 || send_all(outbox);
  return good && pages_unsent_.load(std::memory_order_acquire) == 0;
}

bool EngineCore::grant(PageEntry& entry, const ivy::Message& about, Right right,
                       bool mapped) noexcept {
  // What was discarded is not mapped: the next touch, if one is allowed at all, finds a fresh page.
  const Purpose purpose = requests_.purpose(about.txn);
  if (purpose == Purpose::kDiscard) return drop(entry, about.gfn, false);
  entry.set_touched();
  if (!mapped && maps_early(about.gfn, right, purpose)) {
    if (const int error = backend_.grant(about.gfn, 1, right))
      return backend_failed(error, "be mapped", about.gfn);
  }
  held_.granted(about.gfn, right);
  return true;
}

bool EngineCore::send(PageEntry& entry, const ivy::Message& message, Event& event) noexcept {
  if (without(Feature::kParallel) && !in_turn(entry, message, event)) return true;
  return send_now(entry, message, event);
}

// A page is looked at now: it is sent from its frame a little later, unchanged (outbox.h). Of one
// that is untouched the frame is not asked for: it would get memory, and nobody would drop it.
bool EngineCore::send_now(PageEntry& entry, ivy::Message message, Event& event) noexcept {
  if (message.to == config_.self) {
    if (event.push(message)) return true;
    stop(fmt::format("page {}: more messages of host {} to itself than one event can cause",
                     message.gfn, name_of(config_.self)));
    return false;
  }
  const std::byte* page = nullptr;
  if (message.payload == ivy::Payload::kPage) {
    const bool untouched = !entry.touched() && !without(Feature::kZero);
    if (!untouched) {
      page = backend_.frame(message.gfn);
      if (page == nullptr) return backend_failed(ENOMEM, "be sent", message.gfn);
    }
    if (untouched || (!without(Feature::kZero) && is_zero_page(page))) {
      message.payload = ivy::Payload::kZero;
      page = nullptr;
    } else {
      fetch_lines(page);
    }
  }
  if (message.payload == ivy::Payload::kZero) counters_.zero_grants.add();
  Outbox& outbox = event.outbox();
  count_sent(message.to);
  outbox.put(message, page);
  if (page != nullptr) pages_unsent_.fetch_add(1, std::memory_order_relaxed);
  const bool now = outbox.full() || without(Feature::kBatching) ||
                   (page != nullptr && !backend_.frames_keep_still());
  return !now || send_all(outbox);
}

bool EngineCore::send_all(Outbox& outbox) noexcept {
  std::size_t failed = 0;
  outbox.sort();
  counters_.batches.add();
  int error = transport_.send_several(outbox.messages(), outbox.size(), failed);
  // The others have got theirs; of the loss the service thread hears (peer_lost).
  if (error != 0 && survives() &&
      (error != EINVAL || is_lost(outbox.messages()[failed].run.first.to)))
    error = 0;
  if (error != 0 && !ended()) {
    const ivy::Message& message = outbox.messages()[failed].run.first;
    stop(fmt::format("host {} is lost: a {} for page {} could not be sent to it: {}",
                     name_of(message.to), wire::name_of(message.kind), message.gfn,
                     std::strerror(error)));
  }
  pages_unsent_.fetch_sub(outbox.pages(), std::memory_order_release);
  outbox.clear();
  return error == 0;
}

void EngineCore::complete(const ivy::Message& about) noexcept {
  const bool release = about.kind == ivy::Kind::kRelease;
  const Lane lane = release ? requests_.complete_release(about.txn) : requests_.complete(about.txn);
  if (lane != kServiceLane) transport_.wake(lane);
  SleepWord& bell = requests_.bell(about.gfn);
  bell.increment();
  bell.wake();
}

}  // namespace xenspan::dsm
