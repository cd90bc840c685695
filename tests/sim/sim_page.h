// One page at one host in the model, in either size of the real machine: ivy::PageState, or
// ivy::WidePageState with its row. A value; whoever owns it serialises access.
#pragma once

#include <array>
#include <cstdint>

#include "dsm-rdma/ivy/machine.h"
#include "dsm-rdma/ivy/page_state.h"

namespace xenspan::dsm::sim {

class SimPage {
 public:
  using Row = std::array<std::uint64_t, ivy::WidePageState::kRowWords>;

  // All zero: the start state of both.
  SimPage() : narrow_{} {}

  // Calls with the ivy page that this is.
  template <typename Call>
  auto with(bool wide, Call call) {
    return wide ? call(wide_) : call(narrow_);
  }
  template <typename Call>
  auto with(bool wide, Call call) const {
    return wide ? call(wide_) : call(narrow_);
  }

  bool lists(bool wide, const Row& row, HostId host) const {
    return wide ? (row[host / 64] >> host % 64 & 1) != 0 : (narrow_.hosts() & mask_of(host)) != 0;
  }
  void list(bool wide, Row& row, HostId host, bool on) {
    const std::uint64_t bit = std::uint64_t{1} << host % 64;
    if (wide) {
      row[host / 64] = on ? row[host / 64] | bit : row[host / 64] & ~bit;
    } else {
      narrow_.set_hosts(on ? narrow_.hosts() | bit : narrow_.hosts() & ~bit);
    }
  }

 private:
  union {
    ivy::PageState narrow_;
    ivy::WidePageState wide_;
  };
};

}  // namespace xenspan::dsm::sim
