// The rule about descriptors: the guest's are the home process's below a limit; those above are the
// slice's own and do not exist for the guest. Here are the calls for which the rule needs more than
// looking at an argument. Threading: any thread.
#pragma once

#include "dom0-daemon/hypervisor/usermode/io/call_info.h"

namespace xenspan::hypervisor::usermode::io {

inline bool is_hidden(const HomeIo& home, std::int64_t descriptor) {
  return static_cast<std::int32_t>(descriptor) >= home.descriptor_limit;
}

// 0, or -EBADF when an argument names a hidden descriptor.
int check_descriptors(const HomeIo& home, Invocation& invocation);
// The result of a call that makes a descriptor: a hidden one is closed again, and the result is
// -EMFILE.
std::int64_t keep_below_limit(const HomeIo& home, std::int64_t result);

// pipe(2), pipe2(2), socketpair(2): the array is the last argument that points.
std::int64_t run_pair(const HomeIo& home, Invocation& invocation);
std::int64_t run_dup2(const HomeIo& home, Invocation& invocation);
std::int64_t run_dup_from(const HomeIo& home, Invocation& invocation);  // F_DUPFD, F_DUPFD_CLOEXEC
std::int64_t run_close_range(const HomeIo& home, Invocation& invocation);
std::int64_t run_clone_range(const HomeIo& home,
                             Invocation& invocation);  // FICLONERANGE: a descriptor in a structure
std::int64_t run_poll(const HomeIo& home, Invocation& invocation);    // poll(2), ppoll(2)
std::int64_t run_select(const HomeIo& home, Invocation& invocation);  // select(2), pselect6(2)
// The descriptor limit is the guest's RLIMIT_NOFILE. Limits that would hit the slice's own memory
// and threads are accepted without effect.
std::int64_t run_getrlimit(const HomeIo& home, Invocation& invocation);
std::int64_t run_setrlimit(const HomeIo& home, Invocation& invocation);
std::int64_t run_prlimit(const HomeIo& home, Invocation& invocation);

}  // namespace xenspan::hypervisor::usermode::io
