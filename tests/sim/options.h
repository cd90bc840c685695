// Command lines of the programs here: pairs of a name and a whole number.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace xenspan::sim {

// Calls take(name, value) for each pair. False: that is no pair, or take() said so.
template <typename Take>
bool read_options(int argc, char** argv, Take take) {
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) return false;
    char* end = nullptr;
    const std::uint64_t value = std::strtoull(argv[i + 1], &end, 10);
    if (end == argv[i + 1] || *end != '\0' || !take(std::string_view(argv[i]), value)) return false;
  }
  return true;
}

}  // namespace xenspan::sim
