// Who manages a page: gfn -> slot (a hash of aligned blocks of 16 pages) -> manager host.
//
// Neighbouring pages share a manager, so that one fault-around asks one host; distant blocks spread
// over all hosts. At the start every host of a domain has the same table: it follows from the host
// count. Then slots move one by one (ivy/slots.h), each counts its moves, and hosts hear of them
// sooner or later. A plain value; the engine has its own, shared by its threads (live_slots.h).
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

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
  Moves moves_of_slot(unsigned slot) const noexcept { return moves_[slot]; }
  void assign(unsigned slot, HostId host) noexcept { managers_[slot] = host; }
  void assign(unsigned slot, HostId host, Moves moves) noexcept {
    managers_[slot] = host;
    moves_[slot] = moves;
  }

  // Every slot goes to a host in `live` (not empty), shares differ by at most one, and a slot moves
  // only when its host is not live or has more than its share. Deterministic: all hosts that know
  // `live` get the same table.
  void rebalance(HostMask live) noexcept;

  // For messages between daemons: "host.moves" of runs of slots, "0.0x512 3.1x512". parse() gives
  // nothing for what is no table of hosts below kMaxHosts.
  std::string text() const;
  static std::optional<SlotTable> parse(std::string_view text);

  friend bool operator==(const SlotTable&, const SlotTable&) = default;

 private:
  std::array<HostId, kSlots> managers_{};
  std::array<Moves, kSlots> moves_{};
};

}  // namespace xenspan::dsm
