#include "dsm-rdma/scale/memory.h"

#include "dsm-rdma/engine_core.h"
#include "dsm-rdma/page_table.h"
#include "dsm-rdma/slot_table.h"

namespace xenspan::dsm::scale {

Memory memory_of(unsigned hosts, bool wide) {
  constexpr std::size_t kLockWord = sizeof(PageEntry) - sizeof(ivy::PageState);
  Memory memory;
  memory.chunk_flag = 1.0 / 8 / PageTable::kChunkPages;
  // What is left over of a chunk.
  memory.chunk_flag +=
      static_cast<double>(PageTable::kChunkBytes % sizeof(PageEntry)) / PageTable::kChunkPages;
  memory.engine = sizeof(EngineCore);
  memory.parked_at_most = std::uint64_t{hosts} * Requests::kPlaces * ParkedMessages::kNodeBytes;
  if (!wide && hosts <= ivy::PageState::kHosts) {
    memory.entry = sizeof(PageEntry);
    return memory;
  }
  memory.entry = sizeof(ivy::WidePageState) + kLockWord;
  const double most_managed =
      static_cast<double>((SlotTable::kSlots + hosts - 1) / hosts) / SlotTable::kSlots;
  memory.row = most_managed * ivy::WidePageState::kRowWords * sizeof(std::uint64_t);
  return memory;
}

std::uint64_t parked_message_bytes() { return ParkedMessages::kNodeBytes; }

}  // namespace xenspan::dsm::scale
