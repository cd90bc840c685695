// Pages that a thread wants in one go, in whatever order: the rows at the border of its part of a
// grid, the pieces of a structure that it works on next. The first of them that it faults on brings
// the others.
//
// A burst is what one thread asks for with little time between a page's arrival and the next fault.
// Bursts that have a page in common are one: what was part of it twice is asked for with it. (The
// successor table in prefetch.h knows faults that follow each other; where the same pages come in
// one order now and in another order then, it knows nothing for sure.) A page that is lost and
// wanted again within its burst is fought for, and left out for a while. Wrong guesses cost time,
// never correctness. Threading: an object is one thread's at a time (Predictor::Slot). No
// allocation, no clock.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "dsm-rdma/types.h"

namespace xenspan::dsm {

// One page wanted with one right.
struct Ask {
  Gfn gfn = 0;
  Right right = Right::kInvalid;  // kShared or kExclusive

  friend bool operator==(const Ask&, const Ask&) = default;
};

class Bursts {
 public:
  static constexpr unsigned kMost = 16;  // pages of one burst

  // The thread has asked for a page, by a fault or beside one; a new burst begins with `first`.
  // Whether it has lost the page within the burst.
  bool on_asked(Ask ask, bool first) noexcept {
    if (first) close();
    for (unsigned i = 0; i < asked_count_; ++i) {
      Asked& each = asked_[i];
      if (each.gfn != ask.gfn) continue;
      // Read and then written is no loss in between.
      if (each.right >= ask.right) each.lost = true;
      each.right = std::max(each.right, ask.right);
      return each.lost;
    }
    if (asked_count_ < kMost) {
      asked_[asked_count_++] = {static_cast<std::uint32_t>(ask.gfn), ask.right, false};
    } else {
      too_many_ = true;  // a stream, more likely
    }
    return false;
  }
  // Whether the page is part of the burst that is going on.
  bool asked(Gfn gfn) const noexcept {
    for (unsigned i = 0; i < asked_count_; ++i) {
      if (asked_[i].gfn == gfn) return true;
    }
    return false;
  }
  // The most that the thread wants of this page as part of a burst; kInvalid: not known.
  Right right(Gfn gfn) const noexcept {
    for (const Burst& burst : bursts_) {
      const Member* const found = find(burst, gfn);
      if (found != nullptr && found->seen >= kSure) return found->right;
    }
    return Right::kInvalid;
  }
  // How many pages others() would call for, at most.
  unsigned size(Gfn gfn) const noexcept {
    unsigned count = 0;
    others(gfn, [&count](Ask) { return ++count != 0; });
    return count;
  }
  // Calls `visit` with each page that is to be asked for together with this one.
  template <typename Visit>
  void others(Gfn gfn, Visit visit) const noexcept {
    for (const Burst& burst : bursts_) {
      const Member* const found = find(burst, gfn);
      if (found == nullptr || found->seen < kSure) continue;
      for (const Member& each : burst.members) {
        if (each.seen >= kSure && each.gfn != gfn && !visit(each.ask())) return;
      }
      return;
    }
  }
  // The page was brought with its burst and lost before it was touched.
  void on_unused(Gfn gfn) noexcept {
    for (Burst& burst : bursts_) {
      for (Member& each : burst.members) {
        if (each.seen != 0 && each.gfn == gfn) each.seen = kNotWanted;
      }
    }
    for (unsigned i = 0; i < asked_count_; ++i) {
      if (asked_[i].gfn == gfn) asked_[i].lost = true;
    }
  }

 private:
  static constexpr int kSure = 2, kMostSeen = 6;
  static constexpr unsigned kOnlyRead = 16;
  // A member in less esteem than zero gains by being part of a burst, and is no part of it until
  // then. Zero: none.
  static constexpr int kNotWanted = -8;
  // Small, because every thread has some: gfns have 32 bits at most (PageTable::kMaxPages).
  struct Member {
    std::uint32_t gfn = 0;
    Right right = Right::kInvalid;
    std::int8_t seen = 0;
    std::uint8_t only_read = 0;  // bursts, one after the other, since it was written in one
    Ask ask() const noexcept { return {gfn, right}; }
  };
  struct Burst {
    std::array<Member, kMost> members;
    std::uint64_t used = 0;
  };
  struct Asked {
    std::uint32_t gfn = 0;
    Right right = Right::kInvalid;
    bool lost = false;
  };

  static const Member* find(const Burst& burst, Gfn gfn) noexcept {
    for (const Member& each : burst.members) {
      if (each.seen != 0 && each.gfn == gfn) return &each;
    }
    return nullptr;
  }
  // The burst with most of these pages; the one not used for longest when there is none.
  Burst& burst_of_asked() noexcept {
    Burst* best = nullptr;
    unsigned most = 0;
    for (Burst& burst : bursts_) {
      unsigned common = 0;
      for (unsigned i = 0; i < asked_count_; ++i) {
        const Member* const member = find(burst, asked_[i].gfn);
        if (member != nullptr && member->seen > 0) ++common;
      }
      if (common > most) {
        most = common;
        best = &burst;
      }
    }
    if (best != nullptr) return *best;
    best = std::min_element(
        bursts_.begin(), bursts_.end(),
        [](const Burst& one, const Burst& other) { return one.used < other.used; });
    *best = {};
    return *best;
  }
  // What was asked for is learned.
  void close() noexcept {
    if (asked_count_ > 1 && !too_many_) {
      Burst& burst = burst_of_asked();
      burst.used = ++clock_;
      for (Member& each : burst.members) {
        if (each.seen > 0 && !asked(each.gfn)) --each.seen;
      }
      for (unsigned i = 0; i < asked_count_; ++i) {
        forget_elsewhere(burst, asked_[i].gfn);
        learn(burst, asked_[i]);
      }
    }
    asked_count_ = 0;
    too_many_ = false;
  }
  // A page is part of one burst.
  void forget_elsewhere(const Burst& burst, Gfn gfn) noexcept {
    for (Burst& each : bursts_) {
      if (&each == &burst) continue;
      for (Member& member : each.members) {
        if (member.gfn == gfn) member.seen = 0;
      }
    }
  }
  void learn(Burst& burst, const Asked& asked) noexcept {
    Member* place = nullptr;
    for (Member& each : burst.members) {
      if (each.seen != 0 && each.gfn == asked.gfn) {
        place = &each;
        break;
      }
      if (each.seen == 0 && place == nullptr) place = &each;
    }
    if (place == nullptr) return;
    if (place->seen == 0) *place = {asked.gfn, asked.right, 0, 0};
    if (asked.right == Right::kExclusive) {
      place->right = Right::kExclusive;
      place->only_read = 0;
    } else if (place->right == Right::kExclusive && ++place->only_read >= kOnlyRead) {
      place->right = Right::kShared;
    }
    if (asked.lost) {
      place->seen = kNotWanted;
    } else {
      place->seen =
          static_cast<std::int8_t>(std::min(place->seen == -1 ? 1 : place->seen + 1, kMostSeen));
    }
  }

  std::array<Burst, 2> bursts_;
  std::array<Asked, kMost> asked_;
  unsigned asked_count_ = 0;
  bool too_many_ = false;
  std::uint64_t clock_ = 0;
};

}  // namespace xenspan::dsm
