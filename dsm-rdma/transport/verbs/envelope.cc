#include "dsm-rdma/transport/verbs/envelope.h"

#include <endian.h>

#include <cstring>

namespace xenspan::dsm::verbs {
namespace {

struct Trailer {
  std::uint8_t type, placement;
  std::uint16_t bounce;
  std::uint32_t zero;
};
static_assert(kContentsBytes + sizeof(Trailer) == kEnvelopeBytes);

struct Note {
  std::uint64_t address, bytes;
  std::uint32_t rkey;
  std::uint32_t zero[11];
};
static_assert(sizeof(Note) == kContentsBytes);

}  // namespace

void encode(const Envelope& envelope, std::byte* to) noexcept {
  const Trailer out{static_cast<std::uint8_t>(envelope.type),
                    static_cast<std::uint8_t>(envelope.placement), htole16(envelope.bounce), 0};
  std::memcpy(to + kContentsBytes, &out, sizeof out);
}

const char* decode(const std::byte* from, std::size_t bytes, unsigned bounce_frames,
                   Envelope& envelope) noexcept {
  if (bytes != kEnvelopeBytes) return "it sent a message of the wrong length";
  Trailer in;
  std::memcpy(&in, from + kContentsBytes, sizeof in);
  envelope.type = static_cast<Type>(in.type);
  envelope.placement = static_cast<Placement>(in.placement);
  envelope.bounce = le16toh(in.bounce);
  if (envelope.type != Type::kMessage && envelope.type != Type::kFrames)
    return "it sent something of an unknown type";
  if (in.placement > static_cast<std::uint8_t>(Placement::kFrame))
    return "it put a page into an unknown place";
  if (envelope.type == Type::kFrames && envelope.placement != Placement::kNoPage)
    return "it sent a page with an announcement";
  if (envelope.placement == Placement::kBounce ? envelope.bounce >= bounce_frames
                                               : envelope.bounce != 0)
    return "it put a page into a bounce frame that does not exist";
  return in.zero == 0 ? nullptr : "it sent reserved bytes that are not zero";
}

void encode(const FramesNote& note, std::byte* contents) noexcept {
  Note out{};
  out.address = htole64(note.address);
  out.bytes = htole64(note.bytes);
  out.rkey = htole32(note.rkey);
  std::memcpy(contents, &out, sizeof out);
}

const char* decode(const std::byte* contents, std::uint64_t expected_bytes,
                   FramesNote& note) noexcept {
  Note in;
  std::memcpy(&in, contents, sizeof in);
  note = {le64toh(in.address), le64toh(in.bytes), le32toh(in.rkey)};
  if (note.bytes != expected_bytes || note.address + note.bytes < note.address)
    return "it announced frames that are not this domain's";
  return nullptr;
}

}  // namespace xenspan::dsm::verbs
