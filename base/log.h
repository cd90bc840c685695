// Log lines: one write(2) to standard error a line, "PROGRAM[NAME]: level: text", so that systemd's
// journal, a test's log file and a terminal read the same. A line names the thing and, for an
// error, the remedy. Threading: any thread; lines never interleave. Not for signal context and not
// for the fault path (it allocates).
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace xenspan::log {

enum class Level { kError, kWarning, kInfo, kDebug };

// Sets the program's name and what tells this instance from others (host name, domain), once, at
// start.
void open(std::string_view program, std::string_view instance);
// Where lines go; standard error until then. For a process whose standard error belongs to its
// guest.
void set_descriptor(int descriptor);
// Lines above this level are dropped; the default is kInfo.
void set_level(Level level);
void write(Level level, std::string_view text);

template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kDebug, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace xenspan::log
