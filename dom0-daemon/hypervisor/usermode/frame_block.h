// How much memory the kernel is asked for at once where many pages are touched or filled: a block.
//
// Of the sizes that Linux has (hugepages-*kB), 32 KiB is the largest that its lists for each
// processor hold (PAGE_ALLOC_COSTLY_ORDER), and the price of a block hardly counts beside its
// contents.
#pragma once

#include <cstddef>

namespace xenspan::hypervisor::usermode {

inline constexpr std::size_t kBlockBytes = 32768;

}  // namespace xenspan::hypervisor::usermode
