// How a protocol message looks on a wire: 64 bytes, little endian, the same for every transport.
//
//   0 u32 magic "XSPM"    4 u8 version   5 u8 kind       6 u8 payload    7 u8 right
//   8 u8 flags (1 = discard)              9 u8 from      10 u8 to        11 u8 requester
//  12 u8 acks            13 u8 reads     14 u16 lane     16 u32 epoch    20 u32 txn
//  24 u64 gfn            32 u16 version  34 u16 moves    36 u32 step     40 u64 copyset
//  48 u8 more            49 .. 63 zero
//
// A kRow has a copyset, and no acks, lane and txn; all others have a copyset of zero. In messages
// about a slot `gfn` is its number.
//
// `more` is a run: so many messages follow on this one that are like it, each for the next page and
// with a txn greater by `step` (modulo 2^32). Only messages about pages, without a page behind them
// and without a copyset, come in runs; `step` is zero where `more` is.
//
// A message with payload kPage is followed by 4096 bytes. Pure functions, any thread; nothing is
// allocated.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dsm-rdma/ivy/message.h"

namespace xenspan::dsm::wire {

inline constexpr std::size_t kMessageBytes = 64;
inline constexpr std::uint32_t kMagic = 0x4d505358;  // "XSPM"
inline constexpr std::uint8_t kVersion = 5;
inline constexpr unsigned kMostRun = 64;  // messages in one

// Messages that are one on the wire.
struct Run {
  ivy::Message first;
  unsigned count = 1;
  std::uint32_t step = 0;  // zero where count is 1

  Run() = default;
  explicit Run(const ivy::Message& only) noexcept : first(only) {}
  // The message behind the last becomes part of it, if it can.
  bool take(const ivy::Message& next) noexcept;
  // 0 .. count - 1.
  ivy::Message at(unsigned index) const noexcept {
    ivy::Message message = first;
    message.gfn += index;
    message.txn += index * step;
    return message;
  }

  friend bool operator==(const Run&, const Run&) = default;
};

// What a correct message of this domain stays within.
struct Bounds {
  unsigned hosts = 1;
  unsigned lanes = 0;  // largest lane number
  Gfn pages = 0;
  Epoch epoch = 1;
};

void encode(const Run& run, Epoch epoch, std::byte* to) noexcept;
inline void encode(const ivy::Message& message, Epoch epoch, std::byte* to) noexcept {
  encode(Run(message), epoch, to);
}

// nullptr and a filled `run`, every message of which is within the bounds, or what is wrong with
// these 64 bytes (a phrase that lives as long as the program; `run` is then unspecified). Anything
// the format does not define is refused.
const char* decode(const std::byte* from, const Bounds& bounds, Run& run) noexcept;

// "kGrant", for sentences.
const char* name_of(ivy::Kind kind) noexcept;

}  // namespace xenspan::dsm::wire
