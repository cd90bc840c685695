#include "dsm-rdma/wire.h"

#include <endian.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "dsm-rdma/ivy/page_state.h"
#include "dsm-rdma/slot_table.h"

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
  std::uint16_t page_version, moves;
  std::uint32_t step;
  std::uint64_t copyset;
  std::uint8_t more, reserved_a[7];
  std::uint64_t reserved_b;
};
static_assert(sizeof(Layout) == kMessageBytes);
static_assert(kMaxHosts <= 256, "a host has a byte");
static_assert(offsetof(Layout, lane) == 14 && offsetof(Layout, epoch) == 16 &&
              offsetof(Layout, gfn) == 24 && offsetof(Layout, page_version) == 32 &&
              offsetof(Layout, step) == 36 && offsetof(Layout, copyset) == 40 &&
              offsetof(Layout, more) == 48);

constexpr std::uint8_t kFlagDiscard = 1;

constexpr bool comes_in_runs(ivy::Kind kind, ivy::Payload payload) {
  return payload != ivy::Payload::kPage && kind != ivy::Kind::kRow && !ivy::is_about_slot(kind);
}

const char* check_kind(const Layout& in) noexcept {
  if (in.kind < static_cast<std::uint8_t>(ivy::Kind::kReadRequest) ||
      in.kind > static_cast<std::uint8_t>(ivy::Kind::kSlotMoved)) {
    return "unknown kind of message";
  }
  if (in.payload > static_cast<std::uint8_t>(ivy::Payload::kZero)) return "unknown payload";
  if (in.right > static_cast<std::uint8_t>(Right::kExclusive)) return "unknown right";
  const bool grant = in.kind == static_cast<std::uint8_t>(ivy::Kind::kGrant);
  if (!grant && in.payload != 0) return "a payload with a message that carries none";
  if (grant && in.right == 0) return "a grant of no right";
  if ((in.flags & ~kFlagDiscard) != 0) return "unknown flags";
  const bool row = in.kind == static_cast<std::uint8_t>(ivy::Kind::kRow);
  if (row && (in.acks != 0 || in.lane != 0 || in.txn != 0)) return "a row with a request's marks";
  if (!row && in.copyset != 0) return "a copyset with a message that carries none";
  return nullptr;
}

const char* check_run(const Layout& in, const Bounds& bounds) noexcept {
  if (in.more == 0) return in.step == 0 ? nullptr : "a step without a run";
  if (in.more >= kMostRun) return "a run that is too long";
  if (!comes_in_runs(static_cast<ivy::Kind>(in.kind), static_cast<ivy::Payload>(in.payload)))
    return "a run of messages that do not come in runs";
  return in.more < bounds.pages - le64toh(in.gfn) ? nullptr : "a page outside the domain's memory";
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
  if (ivy::is_about_slot(static_cast<ivy::Kind>(in.kind))) {
    if (le64toh(in.gfn) >= SlotTable::kSlots) return "a slot that does not exist";
  } else if (le64toh(in.gfn) >= bounds.pages) {
    return "a page outside the domain's memory";
  }
  if (bounds.hosts < kMaxHosts && le64toh(in.copyset) >> bounds.hosts != 0)
    return "a copyset of hosts that are not in the domain";
  return nullptr;
}

}  // namespace

bool Run::take(const ivy::Message& next) noexcept {
  if (count == kMostRun || !comes_in_runs(first.kind, first.payload)) return false;
  const std::uint32_t apart = count == 1 ? next.txn - first.txn : step;
  ivy::Message expected = first;
  expected.gfn += count;
  expected.txn += count * apart;
  if (next != expected) return false;
  step = apart;
  ++count;
  return true;
}

void encode(const Run& run, Epoch epoch, std::byte* to) noexcept {
  const ivy::Message& message = run.first;
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
  out.reads = static_cast<std::uint8_t>(message.reads);
  if (message.kind == ivy::Kind::kRow) {
    out.copyset = htole64(ivy::copyset_of(message));
  } else {
    out.acks = static_cast<std::uint8_t>(message.acks);
    out.lane = htole16(message.lane);
    out.txn = htole32(message.txn);
  }
  out.epoch = htole32(epoch);
  out.gfn = htole64(message.gfn);
  out.page_version = htole16(message.version);
  out.moves = htole16(message.moves);
  out.step = htole32(run.step);
  out.more = static_cast<std::uint8_t>(run.count - 1);
  std::memcpy(to, &out, sizeof out);
}

const char* decode(const std::byte* from, const Bounds& bounds, Run& run) noexcept {
  Layout in;
  std::memcpy(&in, from, sizeof in);
  if (le32toh(in.magic) != kMagic) return "not a message (wrong magic)";
  if (in.version != kVersion) return "another protocol version";
  if (le32toh(in.epoch) != bounds.epoch) return "another membership epoch";
  if (const char* wrong = check_kind(in)) return wrong;
  if (const char* wrong = check_bounds(in, bounds)) return wrong;
  if (const char* wrong = check_run(in, bounds)) return wrong;
  if (std::any_of(in.reserved_a, std::end(in.reserved_a), [](auto each) { return each != 0; }) ||
      in.reserved_b != 0)
    return "reserved bytes are not zero";
  run.count = in.more + 1u;
  run.step = le32toh(in.step);
  ivy::Message& message = run.first;
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
  message.moves = le16toh(in.moves);
  if (message.kind == ivy::Kind::kRow) ivy::set_copyset(message, le64toh(in.copyset));
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
    case ivy::Kind::kRelease: return "kRelease";
    case ivy::Kind::kReleased: return "kReleased";
    case ivy::Kind::kOffer: return "kOffer";
    case ivy::Kind::kRow: return "kRow";
    case ivy::Kind::kSlotOffer: return "kSlotOffer";
    case ivy::Kind::kSlotAsk: return "kSlotAsk";
    case ivy::Kind::kSlotRows: return "kSlotRows";
    case ivy::Kind::kSlotMoved: return "kSlotMoved";
  }
  return "?";
}

}  // namespace xenspan::dsm::wire
