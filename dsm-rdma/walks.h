// Runs of neighbouring pages that a thread goes through again and again, from the front to the
// back: its part of an array in each step of a simulation, and the others' parts behind a barrier.
// The first fault on such a walk brings what is left of it.
//
// A stream (prefetch.h) begins anew each time: a walk of 48 pages costs it six waits. What is
// remembered here is where walks of one thread began and ended. One that came at least twice, with
// little difference, is known; its last page is watched (a sample): where that is lost before it is
// touched, the walk is taken to be shorter. Longer walks than kMost are left to streams. Wrong
// guesses cost time, never correctness. Threading: an object is one thread's at a time
// (Predictor::Slot). No allocation, no clock.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "dsm-rdma/bursts.h"
#include "dsm-rdma/types.h"

namespace xenspan::dsm {

class Walks {
 public:
  static constexpr unsigned kLeast = 16, kMost = 128;  // pages of one walk

  // The thread touches a page that it has to ask for, or that shows how far it has come.
  void on_touched(Ask ask) noexcept {
    const auto page = static_cast<std::uint32_t>(ask.gfn);
    for (Walk& each : walks_) {
      if (each.touches == 0 || each.right != ask.right) continue;
      if (page > each.last && page - each.last <= kReach) {
        each.pages += std::min(each.ahead, page - each.last - 1) + 1;
        each.ahead = 0;
        each.last = page;
        ++each.touches;
        each.used = ++clock_;
        return;
      }
      if (page < each.first || page > each.last) continue;
      if (page + kReach > each.last && page != each.first) return;  // lost before it was used
      learn(each);
      each = {page, page, ask.right, 1, 1, 0, ++clock_};
      return;
    }
    Walk& oldest =
        *std::min_element(walks_.begin(), walks_.end(),
                          [](const Walk& one, const Walk& other) { return one.used < other.used; });
    learn(oldest);
    oldest = {page, page, ask.right, 1, 1, 0, ++clock_};
  }
  // A page is asked for before it is touched, or is here already.
  void on_early(Ask ask) noexcept {
    for (Walk& each : walks_) {
      if (each.touches != 0 && each.right == ask.right && ask.gfn > each.last &&
          ask.gfn - each.last <= kReach)
        ++each.ahead;
    }
  }
  // The page behind the walk that this one is part of, as far as that is known; otherwise the page
  // behind this one.
  Gfn end(Ask ask) const noexcept {
    const Known* const known = find(ask);
    return known != nullptr && known->sure >= kSure ? known->end : ask.gfn + 1;
  }
  // All pages from this one to the walk's end have been asked for.
  void on_asked(Ask ask) noexcept {
    const Known* const known = find(ask);
    if (known == nullptr) return;
    for (Walk& each : walks_) {
      if (each.touches == 0 || each.right != ask.right || each.last != ask.gfn) continue;
      each.last = known->end - 1;
      each.pages = each.last + 1 - each.first;
      each.touches = kFewTouches;
    }
  }
  // What became of a page that was watched.
  void on_judged(Gfn gfn, bool used) noexcept {
    for (Known& each : known_) {
      if (each.sure == 0 || gfn < each.first || gfn >= each.end) continue;
      if (used) {
        each.sure = std::min<std::uint8_t>(each.sure + 1, kMostSure);
        continue;
      }
      for (Walk& walk : walks_) {
        if (walk.right == each.right && walk.last + 1 == each.end) walk.touches = 0;
      }
      each.end -= std::max(1u, (each.end - each.first) / 8);
      each.sure = each.end - each.first < kLeast ? 0 : each.sure - 1;
    }
  }

 private:
  static constexpr std::uint32_t kReach = 32;      // pages between two touches of one walk, at most
  static constexpr std::uint32_t kFewTouches = 3;  // and no less
  static constexpr std::uint8_t kSure = 2, kMostSure = 4;
  // Small, because every thread has some: gfns have 32 bits at most (PageTable::kMaxPages).
  struct Walk {
    std::uint32_t first = 0, last = 0;
    Right right = Right::kInvalid;
    std::uint32_t touches = 0;  // 0: none
    std::uint32_t pages = 0;    // touched, or asked for between two touches
    std::uint32_t ahead = 0;    // asked for behind the last touch
    std::uint32_t used = 0;
  };
  struct Known {
    std::uint32_t first = 0, end = 0;
    Right right = Right::kInvalid;
    std::uint8_t sure = 0;  // 0: nothing is known here
  };

  const Known* find(Ask ask) const noexcept {
    for (const Known& each : known_) {
      if (each.sure != 0 && each.right == ask.right && ask.gfn >= each.first && ask.gfn < each.end)
        return &each;
    }
    return nullptr;
  }
  // A walk is over. One that left out more than a quarter of its pages was none.
  void learn(const Walk& walk) noexcept {
    const std::uint32_t end = walk.last + 1, pages = end - walk.first;
    if (walk.touches < kFewTouches || pages < kLeast || walk.pages * 4 < pages * 3) return;
    for (Known& each : known_) {
      if (each.sure == 0 || each.right != walk.right) continue;
      const std::uint32_t from = std::max(each.first, walk.first), to = std::min(each.end, end);
      if (from >= to) continue;
      const std::uint32_t first = std::min(each.first, walk.first);
      const std::uint32_t both = std::max(each.end, end) - first;
      if (both > kMost) {
        each.sure = 0;
      } else if ((to - from) * 2 >= both) {
        each = {first, first + both, each.right, std::min<std::uint8_t>(each.sure + 1, kMostSure)};
      }
      return;
    }
    if (pages <= kMost) known_[next_++ % known_.size()] = {walk.first, end, walk.right, 1};
  }

  std::array<Walk, 4> walks_;
  std::array<Known, 4> known_;
  std::uint32_t next_ = 0, clock_ = 0;
};

}  // namespace xenspan::dsm
