// What is asked for beside a fault, because the predictor expects it to be wanted next: it goes out
// with the fault's own request and costs no wait of its own.
#include <pthread.h>

#include <mutex>

#include "dsm-rdma/engine_window.h"

namespace xenspan::dsm {

// A page that is read in order to be written at once is asked for with the right to write.
Right EngineCore::to_ask_for(Gfn gfn, Right wanted, Touch touch) noexcept {
  if (wanted != Right::kShared || without(Feature::kMigratory)) return wanted;
  if (!predictor_.to_be_written(::pthread_self(), gfn) &&
      !migratory_.wants_exclusive(gfn, touch.site)) {
    return wanted;
  }
  if (!backend_.may_prefetch(gfn, Right::kExclusive) || right(gfn) != Right::kInvalid)
    return wanted;
  counters_.migratory.add();
  return Right::kExclusive;
}

// Only what can be had without waiting here: requests in free places of the thread's own lane.
void EngineCore::ask_early(Gfn gfn, Right wanted, Touch touch, Window& window) noexcept {
  if (!predictor_.on() || window.lane() == kServiceLane) return;
  struct Context {
    EngineCore& engine;
    Window& window;
  } context{*this, window};
  const auto start = [](void* opaque, Ask ask, bool sampled) {
    auto& about = *static_cast<Context*>(opaque);
    return about.engine.start_early(ask, sampled, about.window);
  };
  const unsigned started =
      predictor_.on_fault(::pthread_self(), {gfn, wanted}, touch.site, now_ns(), start, &context);
  if (started > 0) counters_.prefetched.add(started);
}

Predictor::Start EngineCore::start_early(Ask ask, bool sampled, Window& window) noexcept {
  using Start = Predictor::Start;
  const unsigned place = window.place();
  if (place == kNoPlace || ended()) return Start::kNoRoom;
  if (ask.gfn >= table_.pages() || !backend_.may_prefetch(ask.gfn, ask.right))
    return Start::kRefused;
  PageEntry& entry = table_[ask.gfn];
  if (!entry.try_lock()) return Start::kRefused;
  const std::lock_guard guard(entry, std::adopt_lock);
  if (ivy::right_of(entry.state, view(ask.gfn)) >= ask.right) return Start::kHeld;
  table_.activate(ask.gfn);
  const bool fresh = !entry.touched();
  const Wish wish{ask.right, sampled ? Purpose::kSample : Purpose::kEarly};
  const Begun begun = begin_request(entry, ask.gfn, wish, window, place);
  if (begun != Begun::kStarted) return Start::kRefused;
  window.started(place);
  returning_.on_wanted(ask.gfn, ask.right, now_ns());
  if (fresh) window.prepare_later(ask.gfn);
  if (sampled) counters_.prefetch_sampled.add();
  return Start::kStarted;
}

// A stream goes on: its next run. The service thread takes the answers.
void EngineCore::ask_ahead(Gfn gfn, Window& window) noexcept {
  if (!predictor_.on()) return;
  struct Context {
    EngineCore& engine;
    Window& window;
  } context{*this, window};
  const auto start = [](void* opaque, Ask ask, bool marker) {
    auto& about = *static_cast<Context*>(opaque);
    return about.engine.start_ahead(ask, marker, about.window.outbox());
  };
  const unsigned started = predictor_.on_marker(::pthread_self(), gfn, start, &context);
  if (started == 0) return;
  counters_.prefetched.add(started);
  window.flush();
}

Predictor::Start EngineCore::start_ahead(Ask ask, bool marker, Outbox& outbox) noexcept {
  using Start = Predictor::Start;
  if (draining_ || ask.gfn >= table_.pages() || !backend_.may_prefetch(ask.gfn, ask.right))
    return Start::kRefused;
  return start_if_free(ask.gfn, {ask.right, marker ? Purpose::kMarker : Purpose::kAhead}, outbox);
}

// Without waiting for the page's lock.
Predictor::Start EngineCore::start_if_free(Gfn gfn, Wish wish, Outbox& outbox) noexcept {
  PageEntry& entry = table_[gfn];
  if (!entry.try_lock()) return Predictor::Start::kRefused;
  const std::lock_guard guard(entry, std::adopt_lock);
  if (ivy::right_of(entry.state, view(gfn)) >= wish.wanted) return Predictor::Start::kHeld;
  return start_unwaited(entry, gfn, wish, outbox);
}

// A request that no thread waits for in its place. With the page's lock held.
Predictor::Start EngineCore::start_unwaited(PageEntry& entry, Gfn gfn, Wish wish,
                                            Outbox& outbox) noexcept {
  using Start = Predictor::Start;
  const unsigned place = requests_.take_ahead_place();
  if (place == kNoPlace) return Start::kNoRoom;
  table_.activate(gfn);
  const std::uint32_t txn = requests_.arm(place, wish.purpose, gfn);
  ivy::Steps steps;
  Event event(outbox);
  const ivy::FaultStart start = ivy::on_fault(entry.state, view(gfn), gfn, wish.wanted,
                                              wish.discard(), kServiceLane, txn, steps);
  if (start != ivy::FaultStart::kStarted) {
    requests_.disarm(place);
    requests_.give_ahead_place(place);
    return Start::kRefused;
  }
  if (!carry_out(entry, steps, event) || !feed_all(entry, event, steps, true))
    return Start::kRefused;
  return Start::kStarted;
}

// What a fault that needed a request tells about its page.
void EngineCore::note_fault(FaultKind kind, Gfn gfn, Touch touch, unsigned place,
                            std::uint64_t start_ns, std::uint64_t end_ns) noexcept {
  if (kind == FaultKind::kRead) {
    migratory_.on_read(gfn, touch.site, end_ns);
    returning_.on_wanted(gfn, Right::kShared, start_ns);
  } else {
    if (kind == FaultKind::kUpgrade)
      migratory_.on_upgrade(gfn, start_ns, requests_.one_giver(place));
    returning_.on_wanted(gfn, Right::kExclusive, start_ns);
  }
}

// A right is taken away: perhaps it is to be asked for again by itself. The hold queue is the
// service thread's clock.
void EngineCore::ask_later(const ivy::Message& lost) noexcept {
  if (lost.discard) return;
  const std::uint64_t now = now_ns();
  const auto reminder = returning_.on_lost(lost.gfn, now, lost.lane != kServiceLane);
  if (reminder.due_ns == 0) return;
  const bool write = reminder.right == Right::kExclusive;
  if (without(write ? Feature::kReturning : Feature::kReadMostly)) return;
  ivy::Message message{.kind = write ? ivy::Kind::kWriteRequest : ivy::Kind::kReadRequest,
                       .from = config_.self,
                       .to = config_.self};
  message.gfn = lost.gfn;
  if (held_.remind(message, reminder.due_ns, reminder.early_ns) && !serving())
    transport_.nudge_at(reminder.due_ns);
}

void EngineCore::ask_again(const ivy::Message& reminder, Outbox& outbox) noexcept {
  const Ask ask{reminder.gfn,
                reminder.kind == ivy::Kind::kWriteRequest ? Right::kExclusive : Right::kShared};
  const bool watch = returning_.to_watch(ask.gfn);
  if (start_ahead(ask, watch, outbox) != Predictor::Start::kStarted) return;
  counters_.prefetched.add();
  if (watch) returning_.on_watched(ask.gfn);
}

// Whether a page that was asked for early is to be mapped, now that it is here. A sample is not,
// and neither is a page whose layout has changed meanwhile: its next touch is looked at anew.
bool EngineCore::maps_early(Gfn gfn, Right right, Purpose purpose) noexcept {
  if (purpose == Purpose::kSample || purpose == Purpose::kMarker) return false;
  return purpose == Purpose::kFault || backend_.may_prefetch(gfn, right);
}

}  // namespace xenspan::dsm
