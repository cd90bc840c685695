#include "dsm-rdma/page_table.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>

namespace xenspan::dsm {

Status PageTable::create(Gfn pages) {
  if (pages == 0 || pages > kMaxPages)
    return Error{EINVAL, "a domain's memory has 1 page to 16 TiB"};
  const Gfn chunks = (pages + kChunkPages - 1) / kChunkPages;
  const std::size_t chunks_bytes = chunks * kChunkBytes;
  bytes_ = chunks_bytes + (chunks + 63) / 64 * sizeof(*active_);
  void* memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return system_error(errno, "cannot reserve addresses for the page table",
                        "raise the limit RLIMIT_AS");
  }
  // Huge pages would make a sparse table dense.
  ::madvise(memory, bytes_, MADV_NOHUGEPAGE);
  chunks_ = static_cast<Chunk*>(memory);
  active_ =
      reinterpret_cast<std::atomic<std::uint64_t>*>(static_cast<std::byte*>(memory) + chunks_bytes);
  pages_ = pages;
  return {};
}

PageTable::~PageTable() {
  if (chunks_ != nullptr) ::munmap(chunks_, bytes_);
}

Gfn PageTable::next_active(Gfn gfn, Gfn end) const noexcept {
  constexpr Gfn kWordPages = 64 * kChunkPages;  // of one word of flags
  while (gfn < end) {
    const unsigned first = gfn / kChunkPages % 64;
    const std::uint64_t here =
        active_[gfn / kWordPages].load(std::memory_order_acquire) >> first << first;
    if (here == 0) {
      gfn = (gfn / kWordPages + 1) * kWordPages;
      continue;
    }
    const auto chunk = static_cast<unsigned>(std::countr_zero(here));
    if (chunk != first) gfn = gfn / kWordPages * kWordPages + chunk * kChunkPages;
    break;
  }
  return std::min(gfn, end);
}

}  // namespace xenspan::dsm
