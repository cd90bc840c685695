#include "dsm-rdma/engine_window.h"

namespace xenspan::dsm {

std::uint32_t EngineCore::Window::still_pending() const {
  std::uint32_t pending = 0;
  for (unsigned i = 0; i < size(); ++i) {
    if ((used_ & 1u << i) != 0 && engine_.requests_.pending(ticket_.place() + i))
      pending |= 1u << i;
  }
  return pending;
}

bool EngineCore::Window::some_over(void* opaque) {
  const auto& window = *static_cast<const Window*>(opaque);
  return window.still_pending() != window.used_;
}

bool EngineCore::Window::make_room() noexcept {
  flush();
  return ticket_.place() == kNoPlace ? ticket_.take() : wait_some();
}

bool EngineCore::Window::wait_some() noexcept {
  flush();
  if (lane() == kServiceLane) {
    engine_.requests_.wait_service(ticket_.place());
  } else if (engine_.transport_.wait(lane(), inbox_, some_over, this) != 0) {
    return false;
  }
  used_ &= still_pending();
  // A place is emptied by stop() too.
  return !engine_.ended();
}

Outcome EngineCore::Window::wait_all() noexcept {
  while (!empty()) {
    if (!wait_some()) return Outcome::kStopped;
  }
  flush();
  return engine_.ended() ? Outcome::kStopped : Outcome::kGranted;
}

}  // namespace xenspan::dsm
