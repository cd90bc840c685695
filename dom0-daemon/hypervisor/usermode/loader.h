// Puts an unmodified ELF executable into guest memory: segments, interpreter, first stack. What execve(2) does.
//
// Used once, by the home, before the first guest instruction. Errors name the program and the remedy.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "dom0-daemon/hypervisor/usermode/address_space.h"

namespace xenspan::hypervisor::usermode {

struct Program {
  std::string path;                    // absolute
  std::vector<std::string> arguments;  // argv, argv[0] included
  std::vector<std::string> environment;
  std::uint32_t uid = 0, gid = 0;
  std::uint64_t hwcap = 0, hwcap2 = 0;
};

struct Entry {
  std::uint64_t pc = 0;          // interpreter's entry, or the program's
  std::uint64_t sp = 0;          // points at argc
  std::uint64_t brk_start = 0;
};

// Writes bytes into guest memory (engine's own view at the home; nothing runs yet).
using GuestWriter = std::function<void(std::uint64_t address, const void* from, std::size_t bytes)>;

// Finds the executable a shell would run (PATH, execute right) relative to `cwd`; follows "#!" lines by prepending the
// interpreter to the arguments, as the kernel does.
Result<std::string> find_program(const std::string& name, const std::string& search_path, const std::string& cwd);

// Checks, maps (into `space`, so that the layout knows) and writes everything. Refuses: not found, not executable, not
// ELF, 32-bit, other machine, other ELF type, segments outside the window, interpreter missing.
Result<Entry> load(const Program& program, AddressSpace& space, const GuestWriter& write);

}  // namespace xenspan::hypervisor::usermode
