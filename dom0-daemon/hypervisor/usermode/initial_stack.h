// The first stack of a program as the System V ABI for x86-64 wants it: argc, argv, envp, auxiliary
// vector, strings.
//
// A pure function; the loader writes what it returns.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace xenspan::hypervisor::usermode {

struct StackContents {
  std::vector<std::string> arguments;
  std::vector<std::string> environment;
  std::string executable;            // AT_EXECFN
  std::vector<std::uint8_t> random;  // AT_RANDOM, 16 bytes
  std::vector<std::pair<std::uint64_t, std::uint64_t>>
      numbers;  // auxiliary entries that are plain numbers
};

struct StackImage {
  std::uint64_t sp = 0;             // points at argc, a multiple of 16
  std::vector<std::uint8_t> bytes;  // from sp to the top
  std::string auxv;                 // as in /proc/PID/auxv
};

// The strings and pointers take this many bytes at most (the auxiliary vector apart).
std::uint64_t stack_bytes_for(const StackContents& contents);
// `top`: end of the stack, a multiple of 16.
StackImage build_stack(const StackContents& contents, std::uint64_t top);

}  // namespace xenspan::hypervisor::usermode
