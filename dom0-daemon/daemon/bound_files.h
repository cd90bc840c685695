// What ties a program to its home: the files, sockets and terminals that it has open there, for the
// refusal to drain that host.
//
// The guest's descriptors at the home are the process's own (dom0-daemon/slice/descriptors.h), so
// the kernel knows their names. Threading: any.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace xenspan::daemon {

// Each once, in the order of their descriptors; empty when the process has ended.
std::vector<std::string> bound_files(pid_t slice);
// "/dev/pts/1, /data/in and 3 more"; "" for none.
std::string first_names(const std::vector<std::string>& names);

}  // namespace xenspan::daemon
