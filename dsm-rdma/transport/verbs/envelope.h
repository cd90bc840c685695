// What one send carries: 64 bytes of contents and 8 that say what they are and where a page went.
//
//   0 .. 63 contents   64 u8 type   65 u8 placement   66 u16 bounce frame   68 u32 zero
//   type message: contents as dsm-rdma/wire.h
//   type frames:  0 u64 address of gfn 0   8 u64 bytes   16 u32 rkey   20 .. 63 zero
//
// The sender's frames are announced once, when they have been registered; until a peer knows them
// it uses the bounce frames, which it knows from the set-up. Little-endian; checked, since it comes
// from a peer. Pure functions, any thread, no allocation. Internal to transport/verbs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xenspan::dsm::verbs {

inline constexpr std::size_t kContentsBytes = 64, kEnvelopeBytes = 72;

enum class Type : std::uint8_t { kMessage = 1, kFrames = 2 };
enum class Placement : std::uint8_t { kNoPage = 0, kBounce = 1, kFrame = 2 };

struct Envelope {
  Type type = Type::kMessage;
  Placement placement = Placement::kNoPage;
  std::uint16_t bounce = 0;

  friend bool operator==(const Envelope&, const Envelope&) = default;
};

struct FramesNote {
  std::uint64_t address = 0, bytes = 0;
  std::uint32_t rkey = 0;

  friend bool operator==(const FramesNote&, const FramesNote&) = default;
};

// Writes the last 8 bytes; the contents are the caller's.
void encode(const Envelope& envelope, std::byte* to) noexcept;
// nullptr, or what is wrong with a received send of `bytes` bytes.
const char* decode(const std::byte* from, std::size_t bytes, unsigned bounce_frames,
                   Envelope& envelope) noexcept;

void encode(const FramesNote& note, std::byte* contents) noexcept;
const char* decode(const std::byte* contents, std::uint64_t expected_bytes,
                   FramesNote& note) noexcept;

}  // namespace xenspan::dsm::verbs
