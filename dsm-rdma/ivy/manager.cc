// The host that serialises a page's requests: one at a time, from the request to the requester's
// kDone.
#include <bit>

#include "dsm-rdma/ivy/roles.h"

namespace xenspan::dsm::ivy {
namespace {

std::uint32_t low_txn(std::uint32_t txn) { return txn & 0xffff; }

HostId owner_of(const PageState& page, const View& view) {
  return page.directory_set ? static_cast<HostId>(page.owner) : view.home;
}

HostMask copyset_of(const PageState& page, const View& view) {
  return page.directory_set ? page.hosts() : mask_of(view.home);
}

Message from_manager(const Context& at, Gfn gfn, const Waiter& request, Kind kind, HostId to) {
  Message message{.kind = kind, .from = at.view.self, .to = to, .requester = request.requester};
  message.discard = request.discard;
  message.lane = request.lane;
  message.txn = request.txn;
  message.gfn = gfn;
  return message;
}

void serve_read(const Context& at, Gfn gfn, const Waiter& request) {
  const HostId owner = owner_of(at.page, at.view);
  at.steps.push(Step::Kind::kSend, from_manager(at, gfn, request, Kind::kReadForward, owner));
}

void invalidate(const Context& at, Gfn gfn, const Waiter& request, HostMask holders) {
  for (; holders != 0; holders &= holders - 1) {
    const auto holder = static_cast<HostId>(std::countr_zero(holders));
    at.steps.push(Step::Kind::kSend, from_manager(at, gfn, request, Kind::kInvalidate, holder));
  }
}

void serve_write(const Context& at, Gfn gfn, const Waiter& request) {
  const HostMask copyset = copyset_of(at.page, at.view);
  const bool upgrade = (copyset & mask_of(request.requester)) != 0;
  const HostId owner = owner_of(at.page, at.view);
  const HostMask holders = copyset & ~mask_of(upgrade ? request.requester : owner);
  const auto acks = static_cast<std::uint8_t>(std::popcount(holders));

  // The longest way first: the owner's, which carries the page; or the holders' acknowledgements.
  if (upgrade) {
    invalidate(at, gfn, request, holders);
    Message grant = from_manager(at, gfn, request, Kind::kGrant, request.requester);
    grant.right = Right::kExclusive;
    grant.acks = acks;
    at.steps.push(Step::Kind::kSend, grant);
  } else {
    Message forward = from_manager(at, gfn, request, Kind::kWriteForward, owner);
    forward.acks = acks;
    at.steps.push(Step::Kind::kSend, forward);
    invalidate(at, gfn, request, holders);
  }
  // From here on the mask collects this host's own acknowledgements (page_state.h).
  if (request.requester == at.view.self) at.page.set_hosts(0);
}

void serve(const Context& at, Gfn gfn, const Waiter& request) {
  PageState& page = at.page;
  if (!page.directory_set) {
    page.directory_set = 1;
    page.owner = at.view.home;
    page.set_hosts(mask_of(at.view.home));
  }
  page.busy = 1;
  page.busy_requester = request.requester;
  page.busy_txn = low_txn(request.txn);
  page.busy_write = request.kind == Kind::kWriteRequest;
  if (page.busy_write) {
    serve_write(at, gfn, request);
  } else {
    serve_read(at, gfn, request);
  }
}

// A requester's next request may overtake its kDone, so the same host can be served and wait at
// once, but only once.
Verdict enqueue(const Context& at, WaitPool& pool, const Waiter& request) {
  PageState& page = at.page;
  if (page.busy_requester == request.requester && page.busy_txn == low_txn(request.txn)) {
    return Verdict::kDuplicate;
  }
  if (const Waiter* waiting = pool.find(page.queue_tail, request.requester)) {
    return waiting->txn == request.txn ? Verdict::kDuplicate : Verdict::kIllegal;
  }
  const std::uint32_t tail = pool.push(page.queue_tail, request);
  if (tail == 0) return Verdict::kIllegal;  // the pool has room for what correct peers may send
  page.queue_tail = tail;
  return Verdict::kAccepted;
}

// The requester now has the right it asked for.
void enter_in_directory(PageState& page) {
  const auto requester = static_cast<HostId>(page.busy_requester);
  if (page.busy_write) {
    page.owner = requester;
    page.set_hosts(mask_of(requester));
  } else {
    page.set_hosts(page.hosts() | mask_of(requester));
  }
  page.busy = 0;
  page.busy_write = 0;
  page.busy_requester = 0;
  page.busy_txn = 0;
}

}  // namespace

bool serves_own_request(const PageState& page, const View& view) noexcept {
  return page.busy && page.busy_requester == view.self && page.busy_txn == low_txn(page.txn);
}

Verdict manage_request(const Context& at, WaitPool& pool, const Message& request) noexcept {
  if (at.view.self != at.view.manager || request.from != request.requester) {
    return Verdict::kIllegal;
  }
  const bool read = request.kind == Kind::kReadRequest;
  if (read && request.discard) return Verdict::kIllegal;
  const Waiter waiter{request.txn, request.lane, request.requester, request.kind, request.discard};
  if (at.page.busy) return enqueue(at, pool, waiter);
  // Who holds a copy has no reason to ask for one. (A request that has waited is served as it is:
  // should its sender be wrong, then its own machine refuses what follows.)
  if (read && (copyset_of(at.page, at.view) & mask_of(request.requester))) {
    return Verdict::kIllegal;
  }
  serve(at, request.gfn, waiter);
  return Verdict::kAccepted;
}

Verdict manage_done(const Context& at, WaitPool& pool, const Message& done) noexcept {
  PageState& page = at.page;
  if (at.view.self != at.view.manager || done.from != done.requester) return Verdict::kIllegal;
  if (!page.busy || page.busy_requester != done.from || page.busy_txn != low_txn(done.txn)) {
    return Verdict::kDuplicate;
  }
  enter_in_directory(page);
  if (page.queue_tail != 0) {
    Waiter next;
    page.queue_tail = pool.pop(page.queue_tail, next);
    serve(at, done.gfn, next);
  }
  return Verdict::kAccepted;
}

}  // namespace xenspan::dsm::ivy
