// Whether a frame is all zero: asked before a page is sent, so that zero pages never cross a wire.
// Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dsm-rdma/types.h"

namespace xenspan::dsm {

// Ends at the first cache line that is not zero, so a page with data costs a few nanoseconds and a
// zero page about 100.
inline bool is_zero_page(const std::byte* frame) noexcept {
  for (std::size_t at = 0; at < kPageSize; at += 64) {
    std::uint64_t words[8];
    std::memcpy(words, frame + at, sizeof words);
    if ((words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7]) !=
        0)
      return false;
  }
  return true;
}

}  // namespace xenspan::dsm
