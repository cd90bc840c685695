// Pages that hosts take from each other again and again, and that a thread passes on its way to
// others: the word of a barrier that is over, the lock of what is written next. What the thread
// wants right behind such a page is asked for together with it.
//
// A gate is a fault on a contended page at one place in the program: of those that touch the page
// of a barrier, the loop that waits is left when all have come. Only
// a gate that was followed at once several times in a row is opened, and one that brings what is
// lost before it is used is closed for long. Wrong guesses cost time, never correctness.
// Threading: an object is one thread's at a time (Predictor::Slot). No allocation, no clock.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "dsm-rdma/bursts.h"
#include "dsm-rdma/types.h"

namespace xenspan::dsm {

class Gates {
 public:
  // What comes later after a gate has nothing to do with it.
  static constexpr std::uint64_t kBehindNs = 40'000;

  // `site`: the instruction's address, or 0.
  static std::uint64_t key_of(Gfn gfn, std::uint64_t site) noexcept {
    return ((gfn + 1) * 0x9e3779b97f4a7c15) ^ site;
  }
  // Whether this gate brings pages. They stay apart from its own, also when nobody fights for it
  // now.
  bool knows(std::uint64_t gate) noexcept {
    const Gate* const known = find(gate);
    return known != nullptr && known->seen >= kSure;
  }
  // The thread has come to a contended page. The page behind it that is to be asked for together
  // with it; right kInvalid: none.
  Ask on_gate(std::uint64_t gate) noexcept {
    judge(false);
    at_ = gate;
    served_ns_ = 0;
    const Gate* const known = find(gate);
    return known != nullptr && known->seen >= kSure ? Ask{known->behind, known->right} : Ask{};
  }
  // What on_gate() told has been asked for, at least in part.
  void on_opened() noexcept {
    opened_ = at_;
    at_ = 0;
  }
  // It was lost before it was used.
  void on_too_soon() noexcept {
    if (Gate* const known = find(opened_)) known->seen = kClosed;
    opened_ = 0;
  }
  // The contended page is here.
  void on_served(std::uint64_t now_ns) noexcept { served_ns_ = now_ns; }
  // The thread has come to another page.
  void on_fault(Ask fault, std::uint64_t now_ns) noexcept {
    behind_ = fault;
    judge(served_ns_ != 0 && now_ns < served_ns_ + kBehindNs);
  }

 private:
  static constexpr int kSure = 3, kMostSeen = 6, kClosed = -16;
  struct Gate {
    std::uint64_t key = 0;
    std::uint32_t behind = 0;
    Right right = Right::kInvalid;  // of the page behind
    std::int8_t seen = 0;           // times that it was followed, in a row
    std::uint8_t age = 0;
  };

  Gate* find(std::uint64_t gate) noexcept {
    for (Gate& each : gates_) {
      if (each.key == gate) return &each;
    }
    return nullptr;
  }
  // Whether the gate that the thread came to last was followed by `behind_` at once.
  void judge(bool followed) noexcept {
    if (at_ == 0) return;
    Gate* known = find(at_);
    if (!followed) {
      if (known != nullptr) known->seen = std::min<std::int8_t>(known->seen, 0);
    } else {
      if (known == nullptr) known = &replace(at_);
      known->seen = static_cast<std::int8_t>(std::min(known->seen + 1, kMostSeen));
      known->behind = static_cast<std::uint32_t>(behind_.gfn);
      known->right = behind_.right;
      known->age = 0;
    }
    at_ = 0;
  }
  Gate& replace(std::uint64_t gate) noexcept {
    Gate* oldest = &gates_[0];
    for (Gate& each : gates_) {
      if (each.age < 255) ++each.age;
      if (each.age > oldest->age) oldest = &each;
    }
    *oldest = {};
    oldest->key = gate;
    return *oldest;
  }

  std::array<Gate, 4> gates_;
  // Keys; 0: none.
  std::uint64_t at_ = 0;      // come to last, not judged yet
  std::uint64_t opened_ = 0;  // opened last
  Ask behind_;
  std::uint64_t served_ns_ = 0;
};

}  // namespace xenspan::dsm
