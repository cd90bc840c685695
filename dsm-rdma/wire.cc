#include "dsm-rdma/wire.h"

#include <endian.h>

#include <cstring>

#include "dsm-rdma/ivy/page_state.h"

namespace xenspan::dsm::wire {
namespace {

// The format as it lies in memory on a little-endian machine; the static_asserts hold it to the
// table in the header.
struct Layout {
  std::uint32_t magic;
  std::uint8_t version, kind, payload, right;
  std::uint8_t flags, from, to, requester;
  std::uint8_t acks, reads;
  std::uint16_t lane;
  std::uint32_t epoch, txn;
  std::uint64_t gfn;
  std::uint16_t page_version, reserved_a;
  std::uint32_t reserved_b;
  std::uint64_t reserved_c[3];
};
static_assert(sizeof(Layout) == kMessageBytes);
static_assert(kMaxHosts <= 256, "a host has a byte");
static_assert(offsetof(Layout, lane) == 14 && offsetof(Layout, epoch) == 16 &&
              offsetof(Layout, gfn) == 24 && offsetof(Layout, page_version) == 32);

constexpr std::uint8_t kFlagDiscard = 1;

const char* check_kind(const Layout& in) noexcept {
  if (in.kind < static_cast<std::uint8_t>(ivy::Kind::kReadRequest) ||
      in.kind > static_cast<std::uint8_t>(ivy::Kind::kInvalidateAck)) {
    return "unknown kind of message";
  }
  if (in.payload > static_cast<std::uint8_t>(ivy::Payload::kZero)) return "unknown payload";
  if (in.right > static_cast<std::uint8_t>(Right::kExclusive)) return "unknown right";
  const bool grant = in.kind == static_cast<std::uint8_t>(ivy::Kind::kGrant);
  if (!grant && in.payload != 0) return "a payload with a message that carries none";
  if (grant && in.right == 0) return "a grant of no right";
  if ((in.flags & ~kFlagDiscard) != 0) return "unknown flags";
  return nullptr;
}

const char* check_bounds(const Layout& in, const Bounds& bounds) noexcept {
  if (in.from >= bounds.hosts || in.to >= bounds.hosts || in.requester >= bounds.hosts) {
    return "a host that is not in the domain";
  }
  if (in.acks >= bounds.hosts) return "more acknowledgements than peers";
  if (in.reads >= bounds.hosts) return "more readers than peers";
  if (le16toh(in.page_version) >> ivy::PageState::kVersionBits != 0)
    return "a page version out of range";
  if (le16toh(in.lane) > bounds.lanes) return "a lane that does not exist";
  if (le64toh(in.gfn) >= bounds.pages) return "a page outside the domain's memory";
  return nullptr;
}

}  // namespace

void encode(const ivy::Message& message, Epoch epoch, std::byte* to) noexcept {
  Layout out{};
  out.magic = htole32(kMagic);
  out.version = kVersion;
  out.kind = static_cast<std::uint8_t>(message.kind);
  out.payload = static_cast<std::uint8_t>(message.payload);
  out.right = static_cast<std::uint8_t>(message.right);
  out.flags = message.discard ? kFlagDiscard : 0;
  out.from = static_cast<std::uint8_t>(message.from);
  out.to = static_cast<std::uint8_t>(message.to);
  out.requester = static_cast<std::uint8_t>(message.requester);
  out.acks = static_cast<std::uint8_t>(message.acks);
  out.reads = static_cast<std::uint8_t>(message.reads);
  out.lane = htole16(message.lane);
  out.epoch = htole32(epoch);
  out.txn = htole32(message.txn);
  out.gfn = htole64(message.gfn);
  out.page_version = htole16(message.version);
  std::memcpy(to, &out, sizeof out);
}

const char* decode(const std::byte* from, const Bounds& bounds, ivy::Message& message) noexcept {
  Layout in;
  std::memcpy(&in, from, sizeof in);
  if (le32toh(in.magic) != kMagic) return "not a message (wrong magic)";
  if (in.version != kVersion) return "another protocol version";
  if (le32toh(in.epoch) != bounds.epoch) return "another membership epoch";
  if (const char* wrong = check_kind(in)) return wrong;
  if (const char* wrong = check_bounds(in, bounds)) return wrong;
  if ((in.reserved_a | in.reserved_b | in.reserved_c[0] | in.reserved_c[1] | in.reserved_c[2]) !=
      0) {
    return "reserved bytes are not zero";
  }
  message.kind = static_cast<ivy::Kind>(in.kind);
  message.payload = static_cast<ivy::Payload>(in.payload);
  message.right = static_cast<Right>(in.right);
  message.discard = (in.flags & kFlagDiscard) != 0;
  message.from = in.from;
  message.to = in.to;
  message.requester = in.requester;
  message.acks = in.acks;
  message.reads = in.reads;
  message.lane = le16toh(in.lane);
  message.txn = le32toh(in.txn);
  message.gfn = le64toh(in.gfn);
  message.version = le16toh(in.page_version);
  return nullptr;
}

const char* name_of(ivy::Kind kind) noexcept {
  switch (kind) {
    case ivy::Kind::kReadRequest: return "kReadRequest";
    case ivy::Kind::kWriteRequest: return "kWriteRequest";
    case ivy::Kind::kReadForward: return "kReadForward";
    case ivy::Kind::kWriteForward: return "kWriteForward";
    case ivy::Kind::kInvalidate: return "kInvalidate";
    case ivy::Kind::kGrant: return "kGrant";
    case ivy::Kind::kInvalidateAck: return "kInvalidateAck";
  }
  return "?";
}

}  // namespace xenspan::dsm::wire
