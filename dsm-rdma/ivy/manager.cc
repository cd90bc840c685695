// The host that puts a page's requests in order: each is entered in the directory and passed on at
// once, whether or not the ones before it are over. The hosts they go to take care of the order
// (holder.cc).
#include <bit>

#include "dsm-rdma/ivy/roles.h"

namespace xenspan::dsm::ivy {
namespace {

Message from_manager(const Context& at, const Message& request, Kind kind, HostId to) {
  Message message{.kind = kind, .from = at.view.self, .to = to, .requester = request.requester};
  message.discard = request.discard;
  message.lane = request.lane;
  message.txn = request.txn;
  message.gfn = request.gfn;
  message.version = static_cast<std::uint16_t>(at.page.version);
  if (to == at.page.owner) message.reads = static_cast<std::uint8_t>(at.page.reads_sent);
  return message;
}

void serve_read(const Context& at, const Message& request) {
  PageState& page = at.page;
  const auto owner = static_cast<HostId>(page.owner);
  at.steps.push(Step::Kind::kSend, from_manager(at, request, Kind::kReadForward, owner));
  // At most one for each other host: who is in the copyset does not ask to read.
  page.reads_sent = (page.reads_sent + 1) & 63;
  page.set_hosts(page.hosts() | mask_of(request.requester));
}

void invalidate(const Context& at, const Message& request, HostMask holders) {
  for (; holders != 0; holders &= holders - 1) {
    const auto holder = static_cast<HostId>(std::countr_zero(holders));
    at.steps.push(Step::Kind::kSend, from_manager(at, request, Kind::kInvalidate, holder));
  }
}

void serve_write(const Context& at, const Message& request, bool upgrade) {
  PageState& page = at.page;
  const auto owner = static_cast<HostId>(page.owner);
  const HostMask holders = page.hosts() & ~mask_of(upgrade ? request.requester : owner);
  const auto acks = static_cast<std::uint8_t>(std::popcount(holders));

  // The longest way first: the owner's, which carries the page; or the holders' acknowledgements.
  if (upgrade) {
    invalidate(at, request, holders);
    Message grant = from_manager(at, request, Kind::kGrant, request.requester);
    grant.right = Right::kExclusive;
    grant.acks = acks;
    grant.reads = 0;
    grant.version = next_version(page.version);
    at.steps.push(Step::Kind::kSend, grant);
  } else {
    Message forward = from_manager(at, request, Kind::kWriteForward, owner);
    forward.acks = acks;
    at.steps.push(Step::Kind::kSend, forward);
    invalidate(at, request, holders);
  }
  page.owner = request.requester;
  page.set_hosts(mask_of(request.requester));
  page.version = next_version(page.version);
  page.reads_sent = 0;
}

}  // namespace

Verdict manage_request(const Context& at, const Message& request) noexcept {
  if (at.view.self != at.view.manager || request.from != request.requester) {
    return Verdict::kIllegal;
  }
  PageState& page = at.page;
  const HostMask copyset = page.directory_set ? page.hosts() : mask_of(at.view.home);
  const bool holds = (copyset & mask_of(request.requester)) != 0;
  const bool read = request.kind == Kind::kReadRequest;
  // Who has a copy, or has one under way, does not ask to read; who is alone asks for nothing.
  if (read && (holds || request.discard)) return Verdict::kIllegal;
  if (holds && std::has_single_bit(copyset)) return Verdict::kIllegal;
  if (!page.directory_set) {
    page.directory_set = 1;
    page.owner = at.view.home;
    page.set_hosts(copyset);
  }
  if (read) {
    serve_read(at, request);
  } else {
    serve_write(at, request, holds);
  }
  return Verdict::kAccepted;
}

}  // namespace xenspan::dsm::ivy
