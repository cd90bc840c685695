// What keeps an open file of a process on its host: for a home whose role moves to another one.
//
// A regular file or directory can be opened again by its path where hosts share the file system,
// and the devices that are the same everywhere are there as well; a terminal, a socket, a pipe or
// what the kernel makes up cannot. Source: proc(5), Documentation/admin-guide/devices.txt.
// Threading: any; what the process opens and closes meanwhile is the caller's to hold.
#pragma once

#include <string>

namespace xenspan {

// `process`: as /proc names it, "self" for this one. "": another host may have it as well, or there
// is no such descriptor. Else what it is: "terminal /dev/pts/1", "socket", "locked file /data/out".
std::string what_binds(const std::string& process, int number);

}  // namespace xenspan
