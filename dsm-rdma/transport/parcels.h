// What leaves by one way, message by message as the wire carries them: those that can be a run
// (wire.h), or were one already, have become one.
//
// Between two messages the protocol asks for no order, so that a message joins a run that began a
// few messages earlier: a manager that is the owner, too, answers each page with a grant and an
// acknowledgement in turn, and that makes two runs. Pages stay as they are, each behind its
// message. Used by one thread at a time, on its stack; nothing is allocated or cleared. `page` is
// borrowed from the Outgoing it came with.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>

#include "dsm-rdma/transport/transport.h"
#include "dsm-rdma/wire.h"

namespace xenspan::dsm {

template <std::size_t kMost>
class Parcels {
 public:
  // At most kMost messages.
  Parcels(const Outgoing* const* messages, std::size_t count) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
      const Outgoing& each = *messages[i];
      if (each.page == nullptr && each.run.count == 1 && joins(each.run.first)) continue;
      std::construct_at(parcels_ + size_++, each);
      if (each.page != nullptr) ++pages_;
    }
  }
  Parcels(const Parcels&) = delete;
  Parcels& operator=(const Parcels&) = delete;

  std::size_t size() const noexcept { return size_; }
  std::size_t pages() const noexcept { return pages_; }
  const Outgoing* begin() const noexcept { return parcels_; }
  const Outgoing* end() const noexcept { return parcels_ + size_; }

 private:
  static constexpr std::size_t kLookBack = 4;

  bool joins(const ivy::Message& message) noexcept {
    const std::size_t first = size_ - std::min(size_, kLookBack);
    for (std::size_t i = size_; i > first; --i) {
      if (parcels_[i - 1].run.take(message)) return true;
    }
    return false;
  }

  union {
    Outgoing parcels_[kMost];
  };
  std::size_t size_ = 0, pages_ = 0;
};

}  // namespace xenspan::dsm
