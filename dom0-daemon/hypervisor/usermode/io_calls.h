// System calls that belong to the home: packing a guest thread's call, executing it there,
// unpacking the answer.
//
// pack() and unpack() run on the host of the calling thread and are the only ones that touch guest
// memory; execute() runs at the home, in a thread that may block, as the invoking user, on plain
// buffers. For a thread on the home all three run in that thread. So a descriptor number, the
// working directory, umask, locks and sockets are the home process's own. The table in io/table.cc
// names each call's arguments (value, string, buffer in, buffer out, structure, ...); a call that
// is not there is refused with ENOSYS.
//
// A caller at the home ignores or blocks SIGPIPE and raises it for the guest after -EPIPE.
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
  std::int64_t number = 0;  // x86-64 system call number
  std::array<std::uint64_t, 6> args{};
};

// Bytes of a packed call or answer; capacity is kept between calls.
using Packet = std::vector<std::uint8_t>;

// Largest payload of one round; longer reads and writes of regular files go in several,
// transparently (unpack asks for more).
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
// Builds the request from registers and guest memory. 0; or -errno: nothing is sent, and the guest
// gets progress.done if that is not 0 (as on Linux an error after progress waits for the next
// call), else the errno.
int pack(const Call& call, const Progress& progress, GuestMemory& memory, Packet& request);
// What execute() needs to know of the home. (The home itself is the class in home.h.)
struct HomeIo {
  const ProcFiles* files = nullptr;  // borrowed; nullptr: no file is the domain's own
  // Descriptors at and above it are the slice's own and do not exist for the guest: EBADF, POLLNVAL
  // in poll(2); close_range(2) stops there; a call whose new descriptor would be one gets EMFILE.
  int descriptor_limit = 1024;
  // What the guest calls its process; 0: as this one is called. It keeps its number when its home
  // changes.
  int pid = 0;
};
// Runs the call. `request` is a peer's bytes: bounds are checked, nonsense gets -EINVAL. `answer`
// starts with the result. The signal masks of ppoll(2), pselect6(2), epoll_pwait(2) are left out:
// the caller keeps the guest's signal mask.
void execute(const HomeIo& home, const Packet& request, Packet& answer);
// Copies results into guest memory and updates `progress`.
Next unpack(const Call& call, const Packet& answer, GuestMemory& memory, Progress& progress);

}  // namespace xenspan::hypervisor::usermode
