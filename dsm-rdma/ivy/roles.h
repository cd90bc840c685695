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

template <typename Page>
struct Context {
  Page& page;
  const View& view;
  Steps& steps;
};

// manager.cc
template <typename Page>
Verdict manage_request(const Context<Page>& at, const Message& request) noexcept;

// holder.cc
template <typename Page>
Verdict hold_read_forward(const Context<Page>& at, const Message& forward) noexcept;
template <typename Page>
Verdict hold_write_forward(const Context<Page>& at, const Message& forward) noexcept;
template <typename Page>
Verdict hold_invalidate(const Context<Page>& at, const Message& invalidate) noexcept;

// requester.cc
template <typename Page>
Verdict request_grant(const Context<Page>& at, const Message& grant) noexcept;
template <typename Page>
Verdict request_ack(const Context<Page>& at, const Message& ack) noexcept;

template <typename Page>
void set_access(Page& page, Access access) noexcept {
  page.access = static_cast<std::uint32_t>(access);
}
template <typename Page>
Pending pending_of(const Page& page) noexcept {
  return static_cast<Pending>(page.pending);
}

}  // namespace xenspan::dsm::ivy
