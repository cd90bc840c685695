// What a program has open at its home, as it can be opened again on another host: for a home whose
// role moves.
//
// The home looks at its own descriptors (look_at_open_files), and tells apart what another host can
// have as well, a regular file or directory by its path and the devices that are the same
// everywhere, from what is bound to this one. The heir opens each again (open_again), and makes
// sure that it is the same file. Neither changes anything: a file that is opened again is given
// only when all have been. Threading: any; a program that opens and closes meanwhile is the
// caller's to hold.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dom0-daemon/hypervisor/usermode/packet.h"

namespace xenspan::hypervisor::usermode {

struct OpenFile {
  std::int32_t number = 0;
  std::int32_t same_as = -1;  // shares offset and flags with this earlier number (dup(2)); -1: none
  std::int32_t flags = 0;     // F_GETFL
  std::uint32_t mode = 0;     // st_mode
  std::uint8_t close_on_exec = 0;
  std::int64_t offset = 0;
  std::uint64_t device = 0, inode = 0;  // device: of a device file its own number
  std::int64_t bytes = 0, modified_ns = 0;
  std::string path;
  friend bool operator==(const OpenFile&, const OpenFile&) = default;
};

struct OpenFiles {
  std::vector<OpenFile> files;     // that another host may have, in the order of their numbers
  std::vector<std::string> bound;  // all others: "1 terminal /dev/pts/1", "4 socket"
};

// This process's, below the limit.
OpenFiles look_at_open_files(int limit);
// One of this process's, bound or not.
OpenFile look_at(int number);
// On the heir, as the invoking user; not for one that has same_as. An error names the number, the
// path and why not.
Result<UniqueFd> open_again(const OpenFile& file);

// On the heir, when every file has been opened: opened[i] is files[i], and empty where it has
// same_as. All numbers below the limit are closed first; an error leaves them in disorder.
Status place_open_files(const std::vector<OpenFile>& files, const std::vector<UniqueFd>& opened,
                        int limit);

inline constexpr std::size_t kMostOpenFiles = 4096, kMostPathBytes = 4096;
void put(const OpenFile& file, Writer& out);
// nullopt: malformed. same_as is not looked at.
std::optional<OpenFile> take_open_file(Reader& in);

}  // namespace xenspan::hypervisor::usermode
