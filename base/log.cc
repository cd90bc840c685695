#include "base/log.h"

#include <unistd.h>

#include <atomic>

namespace xenspan::log {
namespace {

std::string prefix = "xenspan: ";
std::atomic<Level> highest{Level::kInfo};
std::atomic<int> output{STDERR_FILENO};

std::string_view word(Level level) {
  switch (level) {
    case Level::kError: return "error: ";
    case Level::kWarning: return "warning: ";
    case Level::kInfo: return "";
    case Level::kDebug: return "debug: ";
  }
  return "";
}

}  // namespace

void open(std::string_view program, std::string_view instance) {
  prefix =
      instance.empty() ? fmt::format("{}: ", program) : fmt::format("{}[{}]: ", program, instance);
}

void set_descriptor(int descriptor) { output = descriptor; }

void set_level(Level level) { highest = level; }

void write(Level level, std::string_view text) {
  if (level > highest.load(std::memory_order_relaxed)) return;
  const std::string line = fmt::format("{}{}{}\n", prefix, word(level), text);
  // A log line that cannot be written has nowhere to be reported.
  [[maybe_unused]] const ssize_t written = ::write(output.load(), line.data(), line.size());
}

}  // namespace xenspan::log
