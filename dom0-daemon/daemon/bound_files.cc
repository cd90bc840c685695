#include "dom0-daemon/daemon/bound_files.h"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <map>

#include "base/bound_file.h"
#include "dom0-daemon/slice/descriptors.h"

namespace xenspan::daemon {
std::vector<std::string> bound_files(pid_t slice) {
  std::map<int, std::string> by_number;
  std::error_code error;
  std::filesystem::directory_iterator each(fmt::format("/proc/{}/fd", slice), error), end;
  for (; !error && each != end; each.increment(error)) {
    const std::string number = each->path().filename().string();
    int fd = -1;
    std::from_chars(number.data(), number.data() + number.size(), fd);
    if (fd < 0 || fd >= slice::kGuestDescriptors) continue;
    if (const std::string what = what_binds(std::to_string(slice), fd); !what.empty())
      by_number[fd] = fmt::format("{} {}", fd, what);
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
