#include "dsm-rdma/slot_table.h"

#include <bit>
#include <charconv>

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

std::string SlotTable::text() const {
  std::string out;
  for (unsigned slot = 0, end; slot < kSlots; slot = end) {
    for (end = slot + 1; end < kSlots; ++end) {
      if (managers_[end] != managers_[slot] || moves_[end] != moves_[slot]) break;
    }
    if (slot != 0) out += ' ';
    out += std::to_string(managers_[slot]) + '.' + std::to_string(moves_[slot]) + 'x' +
           std::to_string(end - slot);
  }
  return out;
}

std::optional<SlotTable> SlotTable::parse(std::string_view text) {
  SlotTable table(1);
  const char *at = text.data(), *const end = at + text.size();
  const auto number = [&](unsigned& value, unsigned below, char after) {
    const auto [rest, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value >= below) return false;
    at = rest;
    if (after == 0) return true;
    return at != end && *at++ == after;
  };
  for (unsigned slot = 0; slot < kSlots;) {
    unsigned host = 0, moves = 0, count = 0;
    if (slot != 0 && (at == end || *at++ != ' ')) return std::nullopt;
    if (!number(host, kMaxHosts, '.') || !number(moves, 65536, 'x') ||
        !number(count, kSlots - slot + 1, 0) || count == 0) {
      return std::nullopt;
    }
    for (; count > 0; --count, ++slot) {
      table.assign(slot, static_cast<HostId>(host), static_cast<Moves>(moves));
    }
  }
  if (at != end) return std::nullopt;
  return table;
}

}  // namespace xenspan::dsm
