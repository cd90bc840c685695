// Who manages a page: gfn -> slot (a hash of aligned blocks of 16 pages) -> manager host.
//
// Neighbouring pages share a manager, so that one fault-around asks one host; distant blocks spread
// over all hosts. Every host of a domain has the same table: it follows from the host count, and
// from the live hosts after a rebalancing, which moves as few slots as it can. A plain value: the
// engine reads it from any thread and replaces it only while quiet.
#pragma once

#include <array>

#include "dsm-rdma/types.h"

namespace xenspan::dsm {

class SlotTable {
 public:
  static constexpr unsigned kSlots = 1024;
  static constexpr unsigned kBlockPages = 16;

  // Slots dealt out evenly over hosts 0 .. hosts-1 (1 .. kMaxHosts).
  explicit SlotTable(unsigned hosts) noexcept;

  static unsigned slot_of(Gfn gfn) noexcept;
  HostId manager(Gfn gfn) const noexcept { return managers_[slot_of(gfn)]; }
  HostId manager_of_slot(unsigned slot) const noexcept { return managers_[slot]; }
  void assign(unsigned slot, HostId host) noexcept { managers_[slot] = host; }

  // Every slot goes to a host in `live` (not empty), shares differ by at most one, and a slot moves
  // only when its host is not live or has more than its share. Deterministic: all hosts that know
  // `live` get the same table.
  void rebalance(HostMask live) noexcept;

  friend bool operator==(const SlotTable&, const SlotTable&) = default;

 private:
  std::array<HostId, kSlots> managers_{};
};

}  // namespace xenspan::dsm
