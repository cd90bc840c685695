#include "dom0-daemon/daemon/bound_files.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <charconv>
#include <filesystem>
#include <map>

#include "dom0-daemon/slice/descriptors.h"

namespace xenspan::daemon {
namespace {

// From the kernel's list of devices (Documentation/admin-guide/devices.txt).
bool is_terminal(dev_t device) {
  const unsigned number = major(device);
  return number == 4 || number == 5 || (number >= 136 && number <= 143);
}

// `name` is what /proc says of the descriptor: a path, or "pipe:[7]" and the like.
std::string in_words(const struct stat& status, const std::string& name) {
  const bool has_path = name.starts_with('/');
  const std::string path = has_path ? " " + name : "";
  switch (status.st_mode & S_IFMT) {
    case S_IFREG: {
      // The kernel says " (deleted)" behind the path.
      const bool memory = name.starts_with("/memfd:");
      return (memory ? "memory" : status.st_nlink == 0 ? "deleted file" : "file") + path;
    }
    case S_IFDIR: return "directory" + path;
    case S_IFCHR: return (is_terminal(status.st_rdev) ? "terminal" : "device") + path;
    case S_IFBLK: return "device" + path;
    case S_IFIFO: return (has_path ? "named pipe" : "pipe") + path;
    case S_IFSOCK: return "socket";
    default: break;
  }
  // anon_inode:[eventpoll]
  const std::size_t begin = name.find('['), end = name.find(']');
  if (begin == std::string::npos || end == std::string::npos || end < begin) return name;
  return name.substr(begin + 1, end - begin - 1);
}

}  // namespace

std::vector<std::string> bound_files(pid_t slice) {
  std::map<int, std::string> by_number;
  std::error_code error;
  std::filesystem::directory_iterator each(fmt::format("/proc/{}/fd", slice), error), end;
  for (; !error && each != end; each.increment(error)) {
    const std::string number = each->path().filename().string();
    int fd = -1;
    std::from_chars(number.data(), number.data() + number.size(), fd);
    std::error_code gone;
    const std::string name = std::filesystem::read_symlink(each->path(), gone).string();
    struct stat status {};
    if (gone || fd < 0 || fd >= slice::kGuestDescriptors ||
        ::stat(each->path().c_str(), &status) != 0)
      continue;
    by_number[fd] = fmt::format("{} {}", fd, in_words(status, name));
  }
  std::vector<std::string> names;
  for (auto& [fd, name] : by_number) names.push_back(std::move(name));
  return names;
}

std::string first_names(const std::vector<std::string>& names, std::size_t most_bytes) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0 && text.size() + 2 + names[i].size() > most_bytes)
      return text + fmt::format(" and {} more", names.size() - i);
    text += (i == 0 ? "" : ", ") + names[i];
  }
  return text;
}

}  // namespace xenspan::daemon
