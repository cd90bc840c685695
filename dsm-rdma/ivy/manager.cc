// The host that puts a page's requests in order: each is entered in the directory and passed on at
// once, whether or not the ones before it are over. The hosts they go to take care of the order
// (holder.cc).
#include "dsm-rdma/ivy/copyset.h"
#include "dsm-rdma/ivy/roles.h"

namespace xenspan::dsm::ivy {
namespace {

template <typename Page>
Message from_manager(const Context<Page>& at, const Message& request, Kind kind, HostId to) {
  Message message{.kind = kind, .from = at.view.self, .to = to, .requester = request.requester};
  message.discard = request.discard;
  message.lane = request.lane;
  message.txn = request.txn;
  message.gfn = request.gfn;
  message.version = static_cast<std::uint16_t>(at.page.version);
  if (to == at.page.owner) message.reads = static_cast<std::uint16_t>(at.page.reads_sent);
  return message;
}

template <typename Page>
void serve_read(const Context<Page>& at, const Message& request) {
  Page& page = at.page;
  const auto owner = static_cast<HostId>(page.owner);
  at.steps.push(Step::Kind::kSend, from_manager(at, request, Kind::kReadForward, owner));
  // At most one for each other host: who is in the copyset does not ask to read.
  page.reads_sent = (page.reads_sent + 1) & (Page::kHosts - 1);
  Copyset<Page>(page, at.view).add(request.requester);
}

// All in the copyset but one: who is to have the page, or hands it over.
template <typename Page>
void invalidate(const Context<Page>& at, const Message& request, HostId but) {
  Copyset<Page>(at.page, at.view).for_each_other(but, [&](HostId holder) {
    at.steps.push(Step::Kind::kSend, from_manager(at, request, Kind::kInvalidate, holder));
  });
}

template <typename Page>
void serve_write(const Context<Page>& at, const Message& request, bool upgrade) {
  Page& page = at.page;
  const auto owner = static_cast<HostId>(page.owner);
  Copyset<Page> copyset(page, at.view);
  const HostId spared = upgrade ? request.requester : owner;
  const auto acks = static_cast<std::uint16_t>(copyset.count_others(spared));

  // The longest way first: the owner's, which carries the page; or the holders' acknowledgements.
  if (upgrade) {
    invalidate(at, request, spared);
    Message grant = from_manager(at, request, Kind::kGrant, request.requester);
    grant.right = Right::kExclusive;
    grant.acks = acks;
    grant.reads = 0;
    grant.version = next_version<Page>(page.version);
    at.steps.push(Step::Kind::kSend, grant);
  } else {
    Message forward = from_manager(at, request, Kind::kWriteForward, owner);
    forward.acks = acks;
    at.steps.push(Step::Kind::kSend, forward);
    invalidate(at, request, spared);
  }
  page.owner = request.requester;
  copyset.become(request.requester);
  page.version = next_version<Page>(page.version);
  page.reads_sent = 0;
}

}  // namespace

template <typename Page>
Verdict manage_request(const Context<Page>& at, const Message& request) noexcept {
  if (at.view.self != at.view.manager || request.from != request.requester) {
    return Verdict::kIllegal;
  }
  Page& page = at.page;
  const HostId requester = request.requester;
  Copyset<Page> copyset(page, at.view);
  const bool holds = page.directory_set ? copyset.contains(requester) : requester == at.view.home;
  const bool read = request.kind == Kind::kReadRequest;
  // Who has a copy, or has one under way, does not ask to read; who is alone asks for nothing.
  if (read && (holds || request.discard)) return Verdict::kIllegal;
  if (holds && (!page.directory_set || copyset.count_others(requester) == 0)) {
    return Verdict::kIllegal;
  }
  if (!page.directory_set) {
    page.directory_set = 1;
    page.owner = at.view.home;
    copyset.become(at.view.home);
  }
  if (read) {
    serve_read(at, request);
  } else {
    serve_write(at, request, holds);
  }
  return Verdict::kAccepted;
}

template Verdict manage_request(const Context<PageState>&, const Message&) noexcept;
template Verdict manage_request(const Context<WidePageState>&, const Message&) noexcept;

}  // namespace xenspan::dsm::ivy
