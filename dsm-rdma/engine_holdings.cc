// What is known here of lost hosts' pages (holdings.h). Also after stop().
#include <mutex>

#include "dsm-rdma/engine_core.h"

namespace xenspan::dsm {

Holdings EngineCore::holdings(HostMask lost) const {
  Holdings found;
  const Gfn pages = table_.pages();
  for (Gfn gfn = table_.next_active(0, pages); gfn < pages;
       gfn = table_.next_active(gfn + 1, pages)) {
    PageEntry& entry = table_[gfn];
    const std::lock_guard guard(entry);
    const ivy::PageState& state = entry.state;
    const ivy::View place = view(gfn);
    if (place.manager == config_.self) {
      if (state.directory_set != 0 && (state.hosts() & ~lost) == 0) add_page(found.alone, gfn);
    } else if ((lost & mask_of(place.manager)) != 0) {
      if (ivy::right_of(state, place) != Right::kInvalid) {
        add_page(found.held, gfn);
      } else if (state.access == static_cast<std::uint32_t>(ivy::Access::kInvalid)) {
        add_page(found.gone, gfn);
      }
    }
  }
  return found;
}

}  // namespace xenspan::dsm
