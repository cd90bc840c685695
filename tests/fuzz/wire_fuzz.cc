// dsm-rdma/wire.h: 64 bytes from a peer. Whatever decode accepts is within the bounds, every
// message of a run too, and encodes to the same 64 bytes.
//
// Input: hosts, lanes, pages (a byte each, plus one), then messages of 64 bytes.
#include <cstring>

#include "dsm-rdma/ivy/page_state.h"
#include "dsm-rdma/slot_table.h"
#include "dsm-rdma/wire.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/demand.h"

namespace xenspan::dsm {
namespace {

void check(const std::byte* bytes, const wire::Bounds& bounds) {
  wire::Run run;
  if (const char* wrong = wire::decode(bytes, bounds, run)) {
    DEMAND(*wrong != '\0');
    return;
  }
  const ivy::Message& message = run.first;
  DEMAND(message.from < bounds.hosts && message.to < bounds.hosts);
  DEMAND(message.requester < bounds.hosts && message.reads < bounds.hosts);
  if (message.kind == ivy::Kind::kRow) {
    DEMAND(bounds.hosts == kMaxHosts || ivy::copyset_of(message) >> bounds.hosts == 0);
  } else {
    DEMAND(message.acks < bounds.hosts && message.lane <= bounds.lanes);
  }
  DEMAND(message.gfn < (ivy::is_about_slot(message.kind) ? SlotTable::kSlots : bounds.pages));
  DEMAND(message.right <= Right::kExclusive);
  DEMAND(message.version >> ivy::PageState::kVersionBits == 0);
  DEMAND(message.payload == ivy::Payload::kNone || message.kind == ivy::Kind::kGrant);
  DEMAND(wire::name_of(message.kind)[0] == 'k');
  DEMAND(run.count >= 1 && run.count <= wire::kMostRun);
  if (run.count > 1) {
    DEMAND(message.payload != ivy::Payload::kPage && message.kind != ivy::Kind::kRow);
    DEMAND(!ivy::is_about_slot(message.kind));
    DEMAND(run.at(run.count - 1).gfn < bounds.pages);
  }
  // What it stands for, one by one, is taken for the same run again.
  wire::Run rebuilt(message);
  for (unsigned i = 1; i < run.count; ++i) DEMAND(rebuilt.take(run.at(i)));
  DEMAND(rebuilt == run);
  std::byte again[wire::kMessageBytes];
  wire::encode(run, bounds.epoch, again);
  DEMAND(std::memcmp(again, bytes, sizeof again) == 0);
}

}  // namespace
}  // namespace xenspan::dsm

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace xenspan;
  fuzz::Bytes in(data, size);
  dsm::wire::Bounds bounds;
  bounds.hosts = in.take<std::uint8_t>() % dsm::kMaxHosts + 1;
  bounds.lanes = in.take<std::uint8_t>();
  bounds.pages = in.take<std::uint8_t>() + 1u;
  bounds.epoch = 1;
  while (in.left() >= dsm::wire::kMessageBytes) {
    const auto bytes = in.take_bytes(dsm::wire::kMessageBytes);
    dsm::check(reinterpret_cast<const std::byte*>(bytes.data()), bounds);
  }
  return 0;
}
