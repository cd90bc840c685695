// The host that puts a page's requests in order: each is entered in the directory and passed on at
// once, whether or not the ones before it are over. The hosts they go to take care of the order
// (holder.cc).
#include "dsm-rdma/ivy/copyset.h"
#include "dsm-rdma/ivy/rebuild.h"
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
  message.moves = at.view.moves;
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
  page.only_shared = 0;
}

// A page that nobody has touched, of a domain whose home has left: the manager gives it away
// itself. Whoever asks is its owner, and a reader may be all there is.
template <typename Page>
Verdict serve_untouched(const Context<Page>& at, const Message& request) {
  Page& page = at.page;
  const bool read = request.kind == Kind::kReadRequest;
  if (read && request.discard) return Verdict::kIllegal;
  page.directory_set = 1;
  page.owner = request.requester;
  Copyset<Page>(page, at.view).become(request.requester);
  page.version = next_version<Page>(page.version);
  page.reads_sent = 0;
  page.only_shared = read;
  Message grant = from_manager(at, request, Kind::kGrant, request.requester);
  grant.right = read ? Right::kShared : Right::kExclusive;
  grant.payload = Payload::kZero;
  at.steps.push(Step::Kind::kSend, grant);
  return Verdict::kAccepted;
}

// To the host that has become the manager: the sender had not heard of it.
template <typename Page>
Verdict pass_on(const Context<Page>& at, const Message& request) {
  if (!newer(at.view.moves, request.moves)) return Verdict::kIllegal;
  Message message = request;
  message.from = at.view.self;
  message.to = at.view.manager;
  message.moves = at.view.moves;
  at.steps.push(Step::Kind::kSend, message);
  return Verdict::kAccepted;
}

// Whether this host, the manager, can look at what it is asked.
template <typename Page>
Verdict judge(const Context<Page>& at, const Message& asked) {
  if (asked.from != asked.requester && asked.moves == 0) return Verdict::kIllegal;
  return at.view.arriving && !at.page.directory_set ? Verdict::kEarly : Verdict::kAccepted;
}

}  // namespace

template <typename Page>
Verdict manage_request(const Context<Page>& at, const Message& request) noexcept {
  if (at.view.self != at.view.manager) return pass_on(at, request);
  if (const Verdict verdict = judge(at, request); verdict != Verdict::kAccepted) return verdict;
  Page& page = at.page;
  const HostId requester = request.requester;
  if (!page.directory_set && at.view.home == kNoHost) return serve_untouched(at, request);
  Copyset<Page> copyset(page, at.view);
  const bool holds = page.directory_set ? copyset.contains(requester) : requester == at.view.home;
  const bool read = request.kind == Kind::kReadRequest;
  // Who has a copy, or has one under way, does not ask to read; who is alone asks for nothing.
  if (read && (holds || request.discard)) return Verdict::kIllegal;
  // A last holder who has answered readers has a read copy itself: they have released theirs.
  if (holds && (!page.directory_set || (copyset.count_others(requester) == 0 &&
                                        page.reads_sent == 0 && page.only_shared == 0))) {
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

// A host has withdrawn its copy, and asks to be left out from now on. If a write of before makes it
// give the copy up, that will end its release; it is answered all the same, so that it knows that
// nothing of it is under way any more.
template <typename Page>
Verdict manage_release(const Context<Page>& at, const Message& release) noexcept {
  if (at.view.self != at.view.manager) return pass_on(at, release);
  if (const Verdict verdict = judge(at, release); verdict != Verdict::kAccepted) return verdict;
  Page& page = at.page;
  if (!page.directory_set) return Verdict::kIllegal;
  Copyset<Page> copyset(page, at.view);
  Message answer = from_manager(at, release, Kind::kReleased, release.requester);
  answer.version = release.version;
  answer.reads = 0;
  if (!copyset.contains(release.requester)) {
    answer.right = Right::kExclusive;
  } else if (release.version != page.version) {
    return Verdict::kIllegal;
  } else if (page.owner == release.requester) {
    answer.right = Right::kShared;
  } else {
    copyset.remove(release.requester);
  }
  at.steps.push(Step::Kind::kSend, answer);
  return Verdict::kAccepted;
}

template <typename Page>
Verdict manage_row(const Context<Page>& at, const Message& row) noexcept {
  if constexpr (Page::kHosts > kMaxHosts) {
    return Verdict::kIllegal;  // a row has no room for its copyset
  } else {
    Page& page = at.page;
    const HostMask hosts = copyset_of(row);
    if (at.view.self != at.view.manager || !at.view.arriving || page.directory_set != 0 ||
        row.moves != at.view.moves || (hosts & mask_of(row.requester)) == 0) {
      return Verdict::kIllegal;
    }
    page.directory_set = 1;
    page.set_hosts(hosts);
    page.owner = row.requester;
    page.version = row.version;
    page.reads_sent = row.reads;
    page.only_shared = row.right == Right::kShared;
    return Verdict::kAccepted;
  }
}

bool take_row(PageState& page, const View& view, Gfn gfn, HostId to, Message& row) noexcept {
  if (page.directory_set == 0) return false;
  row = {.kind = Kind::kRow, .from = view.self, .to = to};
  row.requester = static_cast<HostId>(page.owner);
  row.reads = static_cast<std::uint16_t>(page.reads_sent);
  row.version = static_cast<std::uint16_t>(page.version);
  row.moves = view.moves;
  row.gfn = gfn;
  if (page.only_shared != 0) row.right = Right::kShared;
  set_copyset(row, page.hosts());
  forget_row(page);
  return true;
}

template Verdict manage_request(const Context<PageState>&, const Message&) noexcept;
template Verdict manage_request(const Context<WidePageState>&, const Message&) noexcept;
template Verdict manage_release(const Context<PageState>&, const Message&) noexcept;
template Verdict manage_release(const Context<WidePageState>&, const Message&) noexcept;
template Verdict manage_row(const Context<PageState>&, const Message&) noexcept;
template Verdict manage_row(const Context<WidePageState>&, const Message&) noexcept;

}  // namespace xenspan::dsm::ivy
