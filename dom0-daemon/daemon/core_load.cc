#include "dom0-daemon/daemon/core_load.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace xenspan::daemon {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The next number in the text, which is shortened.
std::optional<std::uint64_t> next_number(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return {};
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

void skip_words(std::string_view& text, int count) {
  for (; count > 0; --count) {
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    text.remove_prefix(std::min(text.find(' '), text.size()));
  }
}

}  // namespace

std::map<int, CoreTimes> core_times_from(std::string_view text) {
  constexpr int kIdle = 3, kIoWait = 4, kGuest = 8;  // guests' time is part of users' time
  std::map<int, CoreTimes> cores;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (!line.starts_with("cpu")) continue;
    line.remove_prefix(3);
    if (line.starts_with(' ')) continue;  // the sum of all
    const auto core = next_number(line);
    if (!core || *core > 65535) continue;
    CoreTimes& times = cores[static_cast<int>(*core)];
    for (int column = 0; column < kGuest; ++column) {
      const std::uint64_t ticks = next_number(line).value_or(0);
      times.all += ticks;
      if (column != kIdle && column != kIoWait) times.busy += ticks;
    }
  }
  return cores;
}

std::optional<TaskTimes> task_times_from(std::string_view text) {
  // pid (name) state ...: the name may hold anything. utime and stime are 14 and 15, processor 39.
  const std::size_t name_end = text.rfind(") ");
  if (name_end == std::string_view::npos) return {};
  text.remove_prefix(name_end + 2);
  skip_words(text, 11);
  const auto user = next_number(text), system = next_number(text);
  skip_words(text, 23);
  const auto core = next_number(text);
  if (!user || !system || !core || *core > 65535) return {};
  return TaskTimes{*user + *system, static_cast<int>(*core)};
}

void CoreLoad::look(const std::vector<pid_t>& own) {
  if (own.empty()) {
    before_.clear();
    tasks_.clear();
    others_.clear();
    return;
  }
  std::map<int, std::uint64_t> ours;
  std::map<std::pair<pid_t, pid_t>, std::uint64_t> tasks;
  for (const pid_t process : own) {
    std::error_code error;
    std::filesystem::directory_iterator each(fmt::format("/proc/{}/task", process), error), end;
    for (; !error && each != end; each.increment(error)) {
      const auto times = task_times_from(text_of(each->path() / "stat"));
      if (!times) continue;
      const pid_t task = static_cast<pid_t>(std::atoi(each->path().filename().c_str()));
      const auto old = tasks_.find({process, task});
      tasks[{process, task}] = times->busy;
      if (old != tasks_.end() || !before_.empty())
        ours[times->core] += times->busy - (old == tasks_.end() ? 0 : old->second);
    }
  }
  tasks_ = std::move(tasks);
  const std::map<int, CoreTimes> now = core_times_from(text_of("/proc/stat"));
  others_.clear();
  for (const int core : cores_) {
    const auto old = before_.find(core);
    const auto here = now.find(core);
    if (old == before_.end() || here == now.end() || here->second.all <= old->second.all) {
      others_.clear();
      break;
    }
    const std::uint64_t all = here->second.all - old->second.all;
    const std::uint64_t busy = here->second.busy - std::min(old->second.busy, here->second.busy);
    others_.push_back(static_cast<int>(1000 * (busy - std::min(busy, ours[core])) / all));
  }
  before_ = now;
}

}  // namespace xenspan::daemon
