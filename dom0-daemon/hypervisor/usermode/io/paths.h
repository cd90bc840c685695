// Calls that name a file: some files in /proc and /sys are the domain's own, and the slice's
// descriptors are hidden there too.
//
// The home's ProcFiles is asked only when the path, joined with its folder, lies under /proc or
// /sys. Its answer replaces the path: by another one, or by a sealed temporary file with the given
// contents. Threading: any thread.
#pragma once

#include <string>

#include "base/unique_fd.h"
#include "dom0-daemon/hypervisor/usermode/io/call_info.h"

namespace xenspan::hypervisor::usermode::io {

// Absolute and without "//", "/./" and "/../" (by text alone, symbolic links are not looked at).
// `path` is absolute.
std::string normalised(const std::string& path);

// Any call with a path argument: does the call, on the replacement if there is one.
std::int64_t run_path(const HomeIo& home, Invocation& invocation);
std::int64_t run_open(const HomeIo& home,
                      Invocation& invocation);  // open(2), creat(2), openat(2), openat2(2)
std::int64_t run_readlink(const HomeIo& home,
                          Invocation& invocation);  // readlink(2), readlinkat(2)

}  // namespace xenspan::hypervisor::usermode::io
