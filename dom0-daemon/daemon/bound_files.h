// What ties a program to its home: the terminals, sockets and pipes that it has open there, for the
// refusal to drain that host (base/bound_file.h).
//
// The guest's descriptors at the home are the process's own (dom0-daemon/slice/descriptors.h), so
// the kernel knows what they are. Threading: any.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <vector>

namespace xenspan::daemon {

// Each descriptor with its number, what it is, and its name: "1 terminal /dev/pts/1", "4 socket".
// In the order of their numbers; empty when the process has ended. Files that are mapped and closed
// are not among them: the home's slice knows of those.
std::vector<std::string> bound_files(pid_t slice);
// "0 pipe, 1 terminal /dev/pts/1 and 3 more"; "" for none. As many as fit into so many
// bytes, but for the last words.
std::string first_names(const std::vector<std::string>& names, std::size_t most_bytes);

}  // namespace xenspan::daemon
