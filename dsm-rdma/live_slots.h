// The slot table of a running engine: slots change their managers one by one while faults look them
// up.
//
// Threading: of() and table() any thread; of() takes no lock. with() any thread, one at a time. A
// page's View is taken under that page's lock; what with() changes is seen by whoever locks a page
// afterwards. No allocation.
#pragma once

#include <array>
#include <atomic>
#include <mutex>

#include "dsm-rdma/futex_lock.h"
#include "dsm-rdma/ivy/slots.h"
#include "dsm-rdma/slot_table.h"

namespace xenspan::dsm {

class LiveSlots {
 public:
  struct Place {
    HostId manager;
    Moves moves;
    ivy::SlotState::Phase phase;
    bool arriving() const { return phase == ivy::SlotState::Phase::kComing; }
    bool settled() const { return phase == ivy::SlotState::Phase::kSettled; }
  };

  explicit LiveSlots(unsigned hosts) noexcept { become(SlotTable(hosts)); }

  Place of_slot(unsigned slot) const noexcept {
    const std::uint32_t word = words_[slot].load(std::memory_order_acquire);
    return {static_cast<HostId>(word >> 16 & 0xff), static_cast<Moves>(word),
            static_cast<ivy::SlotState::Phase>(word >> 24)};
  }
  Place of(Gfn gfn) const noexcept { return of_slot(SlotTable::slot_of(gfn)); }

  // Calls with the slot's state, which it may change.
  template <typename Call>
  auto with(unsigned slot, Call call) noexcept {
    const std::lock_guard guard(lock_);
    auto result = call(states_[slot]);
    publish(slot);
    return result;
  }

  void learn(HostId self, const SlotTable& table) noexcept {
    const std::lock_guard guard(lock_);
    for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot) {
      ivy::learn(states_[slot], self, table.manager_of_slot(slot), table.moves_of_slot(slot));
      publish(slot);
    }
  }
  // Before the engine runs.
  void become(const SlotTable& table) noexcept {
    const std::lock_guard guard(lock_);
    for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot) {
      states_[slot] = {};
      states_[slot].manager = table.manager_of_slot(slot);
      states_[slot].moves = table.moves_of_slot(slot);
      publish(slot);
    }
  }
  // A slot that is still coming is listed under the manager before.
  SlotTable table() const noexcept {
    const std::lock_guard guard(lock_);
    SlotTable table(1);
    for (unsigned slot = 0; slot < SlotTable::kSlots; ++slot) {
      const ivy::SlotState& state = states_[slot];
      const bool coming = state.phase == ivy::SlotState::Phase::kComing;
      table.assign(slot, coming ? state.before : state.manager,
                   coming ? state.moves_before : state.moves);
    }
    return table;
  }

 private:
  void publish(unsigned slot) noexcept {
    const ivy::SlotState& state = states_[slot];
    const std::uint32_t word = static_cast<std::uint32_t>(state.phase) << 24 |
                               static_cast<std::uint32_t>(state.manager) << 16 | state.moves;
    if (words_[slot].load(std::memory_order_relaxed) != word)
      words_[slot].store(word, std::memory_order_release);
  }

  std::array<std::atomic<std::uint32_t>, SlotTable::kSlots> words_{};
  mutable FutexLock lock_;
  std::array<ivy::SlotState, SlotTable::kSlots> states_{};  // GUARDED_BY(lock_)
};

}  // namespace xenspan::dsm
