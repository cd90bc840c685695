// The copyset of a page at its manager, wherever it is kept: in the page's entry (PageState), or in
// a row of bits beside it (WidePageState). Exact in both: one bit a host.
//
// A domain of N hosts has N bits for each page, at one host: its manager. Managers are dealt out
// evenly (slot_table.h), so rows cost a host one bit for each of the domain's pages, however many
// hosts there are. Internal to dsm-rdma/ivy. Says something once directory_set.
#pragma once

#include <bit>
#include <concepts>

#include "dsm-rdma/ivy/machine.h"
#include "dsm-rdma/ivy/page_state.h"

namespace xenspan::dsm::ivy {

template <typename Page>
class Copyset {
 public:
  Copyset(Page& page, const View& view) : page_(page), row_(view.row) {}

  bool contains(HostId host) const { return (word(host / 64) >> host % 64 & 1) != 0; }
  unsigned count_others(HostId without) const {
    unsigned count = 0;
    for (unsigned i = 0; i < kWords; ++i) {
      count += static_cast<unsigned>(std::popcount(word_without(i, without)));
    }
    return count;
  }
  // Calls `each` for every host but `without`, lowest first.
  template <typename Each>
  void for_each_other(HostId without, Each each) const {
    for (unsigned i = 0; i < kWords; ++i) {
      for (std::uint64_t left = word_without(i, without); left != 0; left &= left - 1) {
        each(static_cast<HostId>(i * 64 + static_cast<unsigned>(std::countr_zero(left))));
      }
    }
  }

  void add(HostId host) { set_word(host / 64, word(host / 64) | bit(host)); }
  void remove(HostId host) { set_word(host / 64, word(host / 64) & ~bit(host)); }
  void become(HostId host) {
    for (unsigned i = 0; i < kWords; ++i) set_word(i, i == host / 64 ? bit(host) : 0);
  }

 private:
  static constexpr unsigned kWords = Page::kHosts / 64;
  static constexpr bool kInside = std::same_as<Page, PageState>;
  static std::uint64_t bit(HostId host) { return std::uint64_t{1} << host % 64; }

  std::uint64_t word(unsigned i) const {
    if constexpr (kInside) {
      return page_.hosts();
    } else {
      return row_[i];
    }
  }
  void set_word(unsigned i, std::uint64_t value) {
    if constexpr (kInside) {
      page_.set_hosts(value);
    } else {
      row_[i] = value;
    }
  }
  std::uint64_t word_without(unsigned i, HostId host) const {
    return i == host / 64 ? word(i) & ~bit(host) : word(i);
  }

  Page& page_;
  std::uint64_t* const row_;
};

}  // namespace xenspan::dsm::ivy
