// A system call as the kernel sees it: number and six registers in, value or -errno out.
//
// Not libc's syscall(3): that one keeps errno in thread-local storage, is a cancellation point for
// some calls and cannot name calls younger than its headers. Threading: any thread.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

namespace xenspan::hypervisor::usermode::io {

inline std::int64_t system_call(std::int64_t number, const std::array<std::uint64_t, 6>& args) {
  register std::uint64_t r10 asm("r10") = args[3];
  register std::uint64_t r8 asm("r8") = args[4];
  register std::uint64_t r9 asm("r9") = args[5];
  std::int64_t result;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(args[0]), "S"(args[1]), "d"(args[2]), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

template <typename T>
std::uint64_t word(T value) {
  if constexpr (std::is_null_pointer_v<T>)
    return 0;
  else if constexpr (std::is_pointer_v<T>)
    return reinterpret_cast<std::uint64_t>(value);
  else
    return static_cast<std::uint64_t>(value);
}

// call(SYS_close, fd): -errno or the value; no errno.
template <typename... Args>
std::int64_t call(std::int64_t number, Args... args) {
  static_assert(sizeof...(Args) <= 6);
  return system_call(number, std::array<std::uint64_t, 6>{word(args)...});
}

}  // namespace xenspan::hypervisor::usermode::io
