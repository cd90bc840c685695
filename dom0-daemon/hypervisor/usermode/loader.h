// Puts an unmodified ELF executable into guest memory: segments, interpreter, first stack. What
// execve(2) does.
//
// Used by the home, before the first guest instruction and for the guest's own execve. Errors name
// the program and the remedy.
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
  std::string given;                   // as the caller of execve named it; empty: as `path`
  std::vector<std::string> arguments;  // argv, argv[0] included
  std::vector<std::string> environment;
  std::uint32_t uid = 0, gid = 0;
  std::uint64_t hwcap = 0, hwcap2 = 0;  // 0: this host's
};

struct Entry {
  std::uint64_t pc = 0;  // interpreter's entry, or the program's
  std::uint64_t sp = 0;  // points at argc
  std::uint64_t brk_start = 0;
  std::string auxv;  // as in /proc/PID/auxv
};

// Writes bytes into guest memory (engine's own view at the home; nothing runs yet).
using GuestWriter = std::function<void(std::uint64_t address, const void* from, std::size_t bytes)>;

// Finds the executable that execvp(3) would run: a name with a slash is taken as it is, relative to
// `cwd`; another one is searched for in `search_path` (PATH; when empty, the system's default). The
// result is absolute. Error codes: ENOENT (a shell exits with 127), EACCES (126).
Result<std::string> find_program(const std::string& name, const std::string& search_path,
                                 const std::string& cwd);

// Follows "#!" lines by prepending the interpreter to the arguments, as the kernel does. A program
// that is no script comes back unchanged. Call it before load() to know what really runs
// (/proc/self/exe, symbols); load() calls it too.
Result<Program> follow_scripts(Program program);

// Checks, maps (into `space`, so that the layout knows; sets its brk) and writes everything.
// Refuses: not found, not executable, not ELF, 32-bit, other machine, other ELF type, segments
// outside the window, interpreter missing, arguments too large, no memory. Error codes: ENOENT (a
// shell exits with 127), others (126). Bytes are written only where they are not zero by being new:
// `write` must reach fresh, zeroed memory.
Result<Entry> load(const Program& program, AddressSpace& space, const GuestWriter& write);

}  // namespace xenspan::hypervisor::usermode
