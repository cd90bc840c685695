#include "dsm-rdma/ivy/machine.h"

#include "dsm-rdma/ivy/roles.h"

namespace xenspan::dsm::ivy {

template <typename Page>
Right right_of(const Page& page, const View& view) noexcept {
  switch (static_cast<Access>(page.access)) {
    case Access::kInitial: return view.self == view.home ? Right::kExclusive : Right::kInvalid;
    case Access::kShared: return Right::kShared;
    case Access::kExclusive: return Right::kExclusive;
    case Access::kInvalid: return Right::kInvalid;
  }
  return Right::kInvalid;
}

template <typename Page>
Verdict on_message(Page& page, const View& view, const Message& message, Steps& steps) noexcept {
  if (message.to != view.self || message.from >= Page::kHosts ||
      message.requester >= Page::kHosts) {
    return Verdict::kIllegal;
  }
  const Context<Page> at{page, view, steps};
  switch (message.kind) {
    case Kind::kReadRequest:
    case Kind::kWriteRequest: return manage_request(at, message);
    case Kind::kReadForward: return hold_read_forward(at, message);
    case Kind::kWriteForward: return hold_write_forward(at, message);
    case Kind::kInvalidate: return hold_invalidate(at, message);
    case Kind::kGrant: return request_grant(at, message);
    case Kind::kInvalidateAck: return request_ack(at, message);
    case Kind::kRelease: return manage_release(at, message);
    case Kind::kReleased: return request_released(at, message);
    case Kind::kRow: return manage_row(at, message);
    case Kind::kOffer:
    case Kind::kSlotOffer:
    case Kind::kSlotAsk:
    case Kind::kSlotRows:
    case Kind::kSlotMoved: return Verdict::kIllegal;
  }
  return Verdict::kIllegal;
}

template Right right_of(const PageState&, const View&) noexcept;
template Verdict on_message(PageState&, const View&, const Message&, Steps&) noexcept;
template Right right_of(const WidePageState&, const View&) noexcept;
template Verdict on_message(WidePageState&, const View&, const Message&, Steps&) noexcept;

}  // namespace xenspan::dsm::ivy
