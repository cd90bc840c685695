#include "dom0-daemon/cli/inherited_files.h"

#include <dirent.h>
#include <fcntl.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace xenspan::cli {

std::vector<int> inherited_files() {
  std::vector<int> files;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir("/proc/self/fd"), &closedir);
  if (!folder) return {0, 1, 2};
  while (const dirent* entry = readdir(folder.get())) {
    if (entry->d_name[0] == '.') continue;
    const int fd = std::atoi(entry->d_name);
    const int flags = fcntl(fd, F_GETFD);
    // The folder's own descriptor is close-on-exec.
    if (flags >= 0 && (flags & FD_CLOEXEC) == 0) files.push_back(fd);
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace xenspan::cli
