#include "dom0-daemon/daemon/bound_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>

#include "dom0-daemon/slice/descriptors.h"

namespace xenspan::daemon {
namespace {

constexpr std::size_t kShown = 4;

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
    if (!gone && fd >= 0 && fd < slice::kGuestDescriptors) by_number[fd] = name;
  }
  std::vector<std::string> names;
  for (auto& [fd, name] : by_number)
    if (std::find(names.begin(), names.end(), name) == names.end())
      names.push_back(std::move(name));
  return names;
}

std::string first_names(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kShown); ++i)
    text += (i == 0 ? "" : ", ") + names[i];
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text;
}

}  // namespace xenspan::daemon
