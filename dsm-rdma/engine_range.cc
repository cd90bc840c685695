// Many pages at once: requests overlap, and what needs no request is done in runs.
#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "dsm-rdma/engine_window.h"

namespace xenspan::dsm {
namespace {

constexpr std::uint64_t kAskedAhead = 256;  // pages of a long range that are asked for at once

}  // namespace

// Where the home has never done anything it holds all pages, and they are zero: nothing to discard.
Gfn EngineCore::first_of_range(Gfn gfn, Gfn end, Wish wish) const noexcept {
  const bool skips = wish.discard() && config_.self == home_.load();
  return skips ? table_.next_active(gfn, end) : gfn;
}

// The part of a long range that comes next: requests without a thread of their own, whose answers
// the service thread takes in runs. Whoever then walks through the range finds these pages held, or
// waits for them. The first page that has not been looked at.
Gfn EngineCore::ask_for_range(Gfn gfn, Gfn end, Wish wish, Window& window) noexcept {
  for (;; ++gfn) {
    gfn = first_of_range(gfn, end, wish);
    if (gfn >= end) break;
    if (start_if_free(gfn, wish, window.outbox()) == Predictor::Start::kNoRoom) break;
  }
  window.flush();
  return gfn;
}

Outcome EngineCore::run_range(Gfn first, std::uint64_t count, Wish wish) noexcept {
  if (count == 0) return ended() ? Outcome::kStopped : Outcome::kGranted;
  if (!in_range(first, count)) return Outcome::kStopped;
  const std::uint32_t rebuilt = rebuilt_.load();
  Window window(*this);
  const Gfn end = first + count;
  const bool ahead = count > Requests::kWindow;
  Gfn asked = first;  // every page before it has been asked for, or need not be
  for (Gfn gfn = first; gfn < end;) {
    if (ahead && asked < end && asked <= gfn + kAskedAhead / 2)
      asked = ask_for_range(std::max(asked, gfn), std::min(end, gfn + kAskedAhead), wish, window);
    if (wish.discard()) {
      gfn = first_of_range(gfn, end, wish);
      if (gfn < end) gfn = discard_held(gfn, end);
      if (gfn == end) break;
    }
    unsigned place = window.place();
    const Beginning begun = begin(gfn, wish, window, place);
    switch (begun.begun) {
      case Begun::kHeld: gfn = std::min(begun.next, end); break;
      case Begun::kStarted:
        window.started(place);
        if (begun.fresh) window.prepare_later(gfn);
        ++gfn;
        break;
      case Begun::kPending:
        // This thread's own answers come first: the request it would wait for may be its own, or
        // wait for its lane.
        if (window.empty()) {
          window.flush();
          requests_.bell(gfn).wait_while(begun.seen, Requests::kSpinNs);
        } else if (!window.wait_some()) {
          return Outcome::kStopped;
        }
        break;
      case Begun::kNeedPlace:
        if (!window.make_room()) return Outcome::kStopped;
        break;
      case Begun::kFailed: return Outcome::kStopped;
    }
  }
  const Outcome outcome = window.wait_all();
  // Some of it may have been forgotten with a host that died.
  if (outcome == Outcome::kGranted && rebuilt_.load() != rebuilt)
    return run_range(first, count, wish);
  return outcome;
}

Outcome EngineCore::acquire_range(Gfn first, std::uint64_t count, Right wanted) noexcept {
  return run_range(first, count, {wanted, Purpose::kFault});
}

Outcome EngineCore::discard(Gfn first, std::uint64_t count) noexcept {
  return run_range(first, count, {Right::kExclusive, Purpose::kDiscard});
}

// Locks `first` and as many neighbours behind it as belong and are free, within its chunk; the end
// of the run. Waiting is for the first alone, so that two runs never wait for each other.
template <typename Belongs>
Gfn EngineCore::take_run(Gfn first, Gfn end, Belongs belongs) noexcept {
  const Gfn limit = std::min(end, (first / PageTable::kChunkPages + 1) * PageTable::kChunkPages);
  table_[first].lock();
  Gfn gfn = first;
  while (belongs(table_[gfn], gfn)) {
    if (++gfn == limit || !table_[gfn].try_lock()) return gfn;
  }
  table_[gfn].unlock();
  return gfn;
}

void EngineCore::release_run(Gfn first, Gfn end) noexcept {
  for (Gfn gfn = first; gfn < end; ++gfn) table_[gfn].unlock();
}

// Empties the pages that are held exclusively from `gfn` on. The first page that is not; `gfn` when
// there is none.
Gfn EngineCore::discard_held(Gfn gfn, Gfn end) noexcept {
  bool touched = false;
  const Gfn stop_at = take_run(gfn, end, [&](const PageEntry& entry, Gfn page) {
    if (ivy::right_of(entry.state, view(page)) != Right::kExclusive) return false;
    touched = touched || entry.touched();
    return true;
  });
  if (touched) {
    const auto count = static_cast<std::uint32_t>(stop_at - gfn);
    int error = backend_.withdraw_run(gfn, count);
    if (error == 0) error = backend_.drop_run(gfn, count);
    if (error != 0) {
      backend_failed(error, "be given back", gfn);
    } else {
      for (Gfn page = gfn; page < stop_at; ++page) table_[page].clear_touched();
    }
  }
  release_run(gfn, stop_at);
  return stop_at;
}

void EngineCore::unmap(Gfn first, std::uint64_t count) noexcept {
  if (count == 0 || !in_range(first, count)) return;
  const Gfn end = first + count;
  for (Gfn gfn = table_.next_active(first, end); gfn < end; gfn = table_.next_active(gfn, end)) {
    const Gfn stop_at = take_run(gfn, end, [&](const PageEntry& entry, Gfn page) {
      return entry.touched() && ivy::right_of(entry.state, view(page)) != Right::kInvalid;
    });
    if (stop_at == gfn) {
      ++gfn;  // not mapped
      continue;
    }
    if (const int error = backend_.withdraw_run(gfn, static_cast<std::uint32_t>(stop_at - gfn))) {
      backend_failed(error, "be taken from the guest", gfn);
    }
    release_run(gfn, stop_at);
    if (ended()) return;
    gfn = stop_at;
  }
}

}  // namespace xenspan::dsm
