#include "dsm-rdma/ivy/machine.h"

#include "dsm-rdma/ivy/roles.h"

namespace xenspan::dsm::ivy {

Right right_of(const PageState& page, const View& view) noexcept {
  switch (static_cast<Access>(page.access)) {
    case Access::kInitial: return view.self == view.home ? Right::kExclusive : Right::kInvalid;
    case Access::kShared: return Right::kShared;
    case Access::kExclusive: return Right::kExclusive;
    case Access::kInvalid: return Right::kInvalid;
  }
  return Right::kInvalid;
}

Verdict on_message(PageState& page, const View& view, const Message& message,
                   Steps& steps) noexcept {
  if (message.to != view.self || message.from >= kMaxHosts || message.requester >= kMaxHosts) {
    return Verdict::kIllegal;
  }
  const Context at{page, view, steps};
  switch (message.kind) {
    case Kind::kReadRequest:
    case Kind::kWriteRequest: return manage_request(at, message);
    case Kind::kReadForward: return hold_read_forward(at, message);
    case Kind::kWriteForward: return hold_write_forward(at, message);
    case Kind::kInvalidate: return hold_invalidate(at, message);
    case Kind::kGrant: return request_grant(at, message);
    case Kind::kInvalidateAck: return request_ack(at, message);
  }
  return Verdict::kIllegal;
}

}  // namespace xenspan::dsm::ivy
