// Access to guest memory from the runtime's own code, as the kernel's copy_from_user and
// copy_to_user.
//
// Addresses are guest virtual addresses. Pages are fetched from other hosts as needed (the access
// faults like the guest's own). A wild or forbidden address makes the call return false and nothing
// crashes; bytes before the bad one may have been copied. Threading: any guest thread; a caller
// holds no lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace xenspan::hypervisor::usermode {

class GuestMemory {
 public:
  virtual ~GuestMemory() = default;
  virtual bool read(void* to, std::uint64_t guest_address, std::size_t bytes) noexcept = 0;
  virtual bool write(std::uint64_t guest_address, const void* from, std::size_t bytes) noexcept = 0;
  // A NUL-terminated string of at most `limit` bytes without the NUL; false also when it is longer.
  virtual bool read_string(std::string& to, std::uint64_t guest_address, std::size_t limit) = 0;
};

}  // namespace xenspan::hypervisor::usermode
