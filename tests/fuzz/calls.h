// System calls that a fuzz input may make at the home: they only look, whatever their arguments,
// and with a descriptor limit of 0 no descriptor exists for them. And the guest memory they fill.
// Plain values, one thread.
#pragma once

#include <sys/syscall.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>

#include "dom0-daemon/hypervisor/usermode/guest_memory.h"

namespace xenspan::fuzz {

inline constexpr std::uint16_t kLookingCalls[] = {
    SYS_read,        SYS_pread64,    SYS_preadv2,         SYS_stat,     SYS_lstat,
    SYS_fstat,       SYS_newfstatat, SYS_statx,           SYS_statfs,   SYS_access,
    SYS_readlink,    SYS_getdents64, SYS_getcwd,          SYS_getxattr, SYS_listxattr,
    SYS_uname,       SYS_sysinfo,    SYS_getrusage,       SYS_times,    SYS_getresuid,
    SYS_getgroups,   SYS_recvfrom,   SYS_recvmsg,         SYS_recvmmsg, SYS_getsockopt,
    SYS_getsockname, SYS_epoll_wait, SYS_timerfd_gettime, SYS_lseek,    SYS_fgetxattr,
    SYS_getrlimit,   SYS_sendto,     SYS_sendmsg,         SYS_sendmmsg, SYS_write,
    SYS_pwritev2,    SYS_dup,        SYS_fcntl,           SYS_ioctl,    SYS_capget,
    SYS_getpriority, SYS_sendfile,   SYS_splice,          SYS_accept4,  SYS_connect,
    SYS_setsockopt,  SYS_readv,      SYS_writev};

// Guest memory of 64 KiB at kStart; everything else is a wild address.
class SmallMemory final : public hypervisor::usermode::GuestMemory {
 public:
  static constexpr std::uint64_t kStart = 0x40000;
  static constexpr std::size_t kBytes = 1 << 16;

  bool read(void* to, std::uint64_t address, std::size_t bytes) noexcept override {
    if (!good(address, bytes)) return false;
    if (bytes > 0) std::memcpy(to, bytes_.data() + (address - kStart), bytes);
    return true;
  }
  bool write(std::uint64_t address, const void* from, std::size_t bytes) noexcept override {
    if (!good(address, bytes)) return false;
    if (bytes > 0) std::memcpy(bytes_.data() + (address - kStart), from, bytes);
    return true;
  }
  bool read_string(std::string& to, std::uint64_t address, std::size_t limit) override {
    to.clear();
    for (char c; to.size() <= limit; to += c) {
      if (!read(&c, address + to.size(), 1)) return false;
      if (c == '\0') return true;
    }
    return false;
  }

 private:
  static bool good(std::uint64_t address, std::size_t bytes) {
    return bytes == 0 ||
           (address >= kStart && address < kStart + kBytes && bytes <= kStart + kBytes - address);
  }
  std::array<std::uint8_t, kBytes> bytes_{};
};

}  // namespace xenspan::fuzz
