// What is asked for beside a fault, because the predictor expects it to be wanted next: it goes out
// with the fault's own request and costs no wait of its own.
#include <pthread.h>

#include <mutex>

#include "dsm-rdma/engine_window.h"

namespace xenspan::dsm {

// A page that is read in order to be written at once is asked for with the right to write.
Right EngineCore::to_ask_for(Gfn gfn, Right wanted, Touch touch) noexcept {
  if (wanted != Right::kShared || !predictor_.on() || !migratory_.wants_exclusive(gfn, touch.site))
    return wanted;
  if (!backend_.may_prefetch(gfn, Right::kExclusive) || right(gfn) != Right::kInvalid)
    return wanted;
  counters_.migratory.add();
  return Right::kExclusive;
}

// Only what can be had without waiting here: requests in free places of the thread's own lane.
void EngineCore::ask_early(Gfn gfn, Right wanted, Window& window) noexcept {
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
      predictor_.on_fault(::pthread_self(), {gfn, wanted}, now_ns(), start, &context);
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
  if (fresh) window.prepare_later(ask.gfn);
  if (sampled) counters_.prefetch_sampled.add();
  return Start::kStarted;
}

// Whether a page that was asked for early is to be mapped, now that it is here. A sample is not,
// and neither is a page whose layout has changed meanwhile: its next touch is looked at anew.
bool EngineCore::maps_early(Gfn gfn, Right right, Purpose purpose) noexcept {
  if (purpose == Purpose::kSample) return false;
  return purpose != Purpose::kEarly || backend_.may_prefetch(gfn, right);
}

}  // namespace xenspan::dsm
