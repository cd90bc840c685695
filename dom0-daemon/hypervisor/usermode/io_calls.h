// System calls that belong to the home: packing a guest thread's call, executing it there, unpacking the answer.
//
// pack() and unpack() run on the host of the calling thread and are the only ones that touch guest memory; execute() runs
// at the home, in a thread that may block, as the invoking user, on plain buffers. For a thread on the home all three run
// in that thread. So a descriptor number, the working directory, umask, locks and sockets are the home process's own.
// A table names each call's arguments (value, string, buffer in, buffer out, structure, iovec, ...); a call not in the
// table and not handled by name is refused with ENOSYS and counted.
// Threading: all functions from any thread, no shared state except what the home's process has.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <vector>

#include "dom0-daemon/hypervisor/usermode/guest_memory.h"

namespace xenspan::hypervisor::usermode {

class ProcFiles;

struct Call {
  std::int64_t number = 0;               // x86-64 system call number
  std::array<std::uint64_t, 6> args{};
};

// Bytes of a packed call or answer; capacity is kept between calls.
using Packet = std::vector<std::uint8_t>;

// Largest payload of one round; longer reads and writes of regular files go in several, transparently (unpack asks for more).
inline constexpr std::size_t kMaxRound = 1 << 20;

enum class Next : std::uint8_t {
  kFinished,  // the result is final
  kAgain,     // pack again from `progress` and execute once more (long read/write)
};

struct Progress {
  std::uint64_t done = 0;   // bytes moved so far
  std::int64_t result = 0;  // what the guest gets in rax when finished
};

// Whether this file handles the call at all.
bool handles(std::int64_t number);
// Builds the request from registers and guest memory. 0, or -errno (then nothing is sent and the guest gets that).
int pack(const Call& call, const Progress& progress, GuestMemory& memory, Packet& request);
// Runs the call. `request` is a peer's bytes: bounds are checked, nonsense gets -EINVAL. `descriptor_limit`: descriptors at
// and above it are the slice's own and do not exist for the guest (EBADF; close_range stops there). `answer` starts with the result.
struct Home {
  const ProcFiles* files = nullptr;
  int descriptor_limit = 1024;
};
void execute(const Home& home, const Packet& request, Packet& answer);
// Copies results into guest memory and updates `progress`.
Next unpack(const Call& call, const Packet& answer, GuestMemory& memory, Progress& progress);

}  // namespace xenspan::hypervisor::usermode
