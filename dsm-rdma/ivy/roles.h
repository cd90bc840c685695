// The three roles a host plays for a page, each in a file of its own; machine.cc looks at a message
// and asks the role.
//
// Internal to dsm-rdma/ivy. Every handler has been given a message for view.self whose host numbers
// are in range. It returns kAccepted with steps pushed and the page changed, or another verdict
// with nothing changed.
#pragma once

#include "dsm-rdma/ivy/machine.h"
#include "dsm-rdma/ivy/page_state.h"

namespace xenspan::dsm::ivy {

struct Context {
  PageState& page;
  const View& view;
  Steps& steps;
};

// manager.cc
Verdict manage_request(const Context& at, const Message& request) noexcept;

// holder.cc
Verdict hold_read_forward(const Context& at, const Message& forward) noexcept;
Verdict hold_write_forward(const Context& at, const Message& forward) noexcept;
Verdict hold_invalidate(const Context& at, const Message& invalidate) noexcept;

// requester.cc
Verdict request_grant(const Context& at, const Message& grant) noexcept;
Verdict request_ack(const Context& at, const Message& ack) noexcept;

inline void set_access(PageState& page, Access access) noexcept {
  page.access = static_cast<std::uint32_t>(access);
}
inline Pending pending_of(const PageState& page) noexcept {
  return static_cast<Pending>(page.pending);
}

}  // namespace xenspan::dsm::ivy
