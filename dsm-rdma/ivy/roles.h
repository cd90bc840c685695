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
template <typename Page>
Verdict manage_release(const Context<Page>& at, const Message& release) noexcept;
template <typename Page>
Verdict manage_row(const Context<Page>& at, const Message& row) noexcept;

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

// What is still missing was the dead host's to send (rebuild.h).
void request_awarded(const Context<PageState>& at, const Message& award) noexcept;

// release.cc
template <typename Page>
Verdict request_released(const Context<Page>& at, const Message& released) noexcept;
// The page was taken away from a host that was about to give it up anyway. The step names the
// release by what the page knows of its number (low_bits), and by kind kRelease.
template <typename Page>
void end_release(const Context<Page>& at, Gfn gfn) noexcept;

// Whether a message that only a manager sends comes from one: from the one known here, or from one
// of before or after.
inline bool from_manager(const View& view, const Message& message) noexcept {
  return message.from == view.manager || message.moves != view.moves || view.arriving;
}

template <typename Page>
void set_access(Page& page, Access access) noexcept {
  page.access = static_cast<std::uint32_t>(access);
}
template <typename Page>
Pending pending_of(const Page& page) noexcept {
  const auto stored = static_cast<Pending>(page.pending);
  return stored == Pending::kRead && page.access == static_cast<std::uint32_t>(Access::kShared)
             ? Pending::kRelease
             : stored;
}

}  // namespace xenspan::dsm::ivy
