#include "base/bound_file.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace xenspan {
namespace {

constexpr unsigned kMemoryDevices = 1;
constexpr unsigned kSameEverywhere[] = {3, 5, 7, 8, 9};  // null, zero, full, random, urandom

bool is_terminal(dev_t device) {
  const unsigned number = major(device);
  return number == 4 || number == 5 || (number >= 136 && number <= 143);
}

bool is_same_everywhere(dev_t device) {
  return major(device) == kMemoryDevices &&
         std::find(std::begin(kSameEverywhere), std::end(kSameEverywhere), minor(device)) !=
             std::end(kSameEverywhere);
}

struct Info {
  bool locked = false;  // flock(2), fcntl(2), leases: the process's, and nobody can give them on
  bool moved = false;   // its offset is not 0
};

Info info_of(const std::string& process, int number) {
  Info info;
  std::ifstream lines("/proc/" + process + "/fdinfo/" + std::to_string(number));
  for (std::string line; std::getline(lines, line);) {
    info.locked = info.locked || line.starts_with("lock:");
    if (line.starts_with("pos:")) info.moved = line.find_first_of("123456789") != line.npos;
  }
  return info;
}

// What the kernel makes up while it is read differs from host to host.
bool is_made_up(const std::string& link) {
  struct statfs system {};
  if (::statfs(link.c_str(), &system) != 0) return false;
  return system.f_type == PROC_SUPER_MAGIC || system.f_type == SYSFS_MAGIC ||
         system.f_type == CGROUP2_SUPER_MAGIC || system.f_type == CGROUP_SUPER_MAGIC;
}

}  // namespace

std::string what_binds(const std::string& process, int number) {
  const std::string link = "/proc/" + process + "/fd/" + std::to_string(number);
  std::error_code gone;
  // A path, or "pipe:[7]" and the like; the kernel says " (deleted)" behind a path.
  const std::string name = std::filesystem::read_symlink(link, gone).string();
  struct stat status {};
  if (gone || ::stat(link.c_str(), &status) != 0) return "";
  switch (status.st_mode & S_IFMT) {
    case S_IFREG:
      if (name.starts_with("/memfd:")) return "memory " + name;
      if (status.st_nlink == 0) return "deleted file " + name;
      if (is_made_up(link)) return "file of the kernel " + name;
      return info_of(process, number).locked ? "locked file " + name : "";
    case S_IFDIR:
      if (is_made_up(link)) return "directory of the kernel " + name;
      // How far it has been read is a number that means something to this host's file system only.
      return info_of(process, number).moved ? "directory that is being read " + name : "";
    case S_IFCHR:
      if (is_terminal(status.st_rdev)) return "terminal " + name;
      return is_same_everywhere(status.st_rdev) ? "" : "device " + name;
    case S_IFBLK: return "device " + name;
    case S_IFIFO: return name.starts_with('/') ? "named pipe " + name : "pipe";
    case S_IFSOCK: return "socket";
    default: break;
  }
  // anon_inode:[eventpoll]
  const std::size_t begin = name.find('['), end = name.find(']');
  if (begin == std::string::npos || end == std::string::npos || end < begin) return name;
  return name.substr(begin + 1, end - begin - 1);
}

}  // namespace xenspan
