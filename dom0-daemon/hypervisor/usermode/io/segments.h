// A guest's buffer in one piece or in several (struct iovec), addressed as one run of bytes.
//
// pack() gathers from it, unpack() scatters to it, from any offset, so that a long transfer goes in
// rounds. The array stays in guest memory and is read again each time, a few entries at once: no
// allocation. A guest that changes it meanwhile harms only itself. Threading: a plain value of one
// thread.
#pragma once

#include <cstdint>

#include "dom0-daemon/hypervisor/usermode/guest_memory.h"

namespace xenspan::hypervisor::usermode::io {

inline constexpr std::uint64_t kMaxTransfer = 0x7ffff000;  // Linux's MAX_RW_COUNT
inline constexpr std::uint64_t kMaxIovecs = 1024;          // Linux's UIO_MAXIOV

class Segments {
 public:
  // -EINVAL when `bytes` is negative as a signed number.
  static int one(std::uint64_t address, std::uint64_t bytes, Segments& segments);
  // As readv(2): -EINVAL, -EFAULT.
  static int vector(GuestMemory& memory, std::uint64_t array, std::uint64_t count,
                    Segments& segments);

  // Bytes in all; like Linux at most kMaxTransfer.
  std::uint64_t total() const { return total_; }
  // Copies `bytes` bytes from byte `from` on. Returns how many could be copied before the first bad
  // address.
  std::size_t gather(GuestMemory& memory, std::uint64_t from, void* to, std::size_t bytes) const;
  std::size_t scatter(GuestMemory& memory, std::uint64_t from, const void* data,
                      std::size_t bytes) const;

 private:
  template <typename Copy>
  std::size_t walk(GuestMemory& memory, std::uint64_t from, std::size_t bytes,
                   const Copy& copy) const;

  std::uint64_t address_ = 0;  // of the buffer, or of the array
  std::uint64_t count_ = 0;    // of entries; 0: one buffer
  bool is_vector_ = false;
  std::uint64_t total_ = 0;
};

}  // namespace xenspan::hypervisor::usermode::io
