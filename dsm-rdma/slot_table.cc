#include "dsm-rdma/slot_table.h"

#include <bit>

namespace xenspan::dsm {
namespace {

// The finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014): every bit of the block number
// moves every bit of the slot.
constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

SlotTable::SlotTable(unsigned hosts) noexcept {
  for (unsigned slot = 0; slot < kSlots; ++slot)
    managers_[slot] = static_cast<HostId>(slot % hosts);
}

unsigned SlotTable::slot_of(Gfn gfn) noexcept {
  // The constant keeps block 0, a fixed point of mix(), from being special.
  return static_cast<unsigned>(mix(gfn / kBlockPages + 0x9e3779b97f4a7c15) % kSlots);
}

void SlotTable::rebalance(HostMask live) noexcept {
  const auto count = static_cast<unsigned>(std::popcount(live));
  if (count == 0) return;
  // Hosts that had most keep the larger shares, so that fewest slots move; here it is enough to
  // hand the remainder to those that come first among hosts above the smaller share, then to the
  // first of the others.
  std::array<unsigned, kMaxHosts> have{}, quota{};
  for (HostId host : managers_) ++have[host];
  unsigned extra = kSlots % count;
  for (int above = 1; above >= 0; --above) {
    for (unsigned host = 0; host < kMaxHosts; ++host) {
      if (!(live & mask_of(static_cast<HostId>(host))) || quota[host] != 0) continue;
      if (above != (have[host] > kSlots / count)) continue;
      quota[host] = kSlots / count + (extra > 0 ? 1 : 0);
      if (extra > 0) --extra;
    }
  }
  std::array<unsigned, kMaxHosts> kept{};
  std::array<bool, kSlots> homeless{};
  for (unsigned slot = 0; slot < kSlots; ++slot) {
    const HostId host = managers_[slot];
    homeless[slot] = kept[host] == quota[host];
    if (!homeless[slot]) ++kept[host];
  }
  unsigned taker = 0;
  for (unsigned slot = 0; slot < kSlots; ++slot) {
    if (!homeless[slot]) continue;
    while (kept[taker] == quota[taker]) ++taker;
    managers_[slot] = static_cast<HostId>(taker);
    ++kept[taker];
  }
}

}  // namespace xenspan::dsm
