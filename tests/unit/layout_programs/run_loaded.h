// Loads a program with the loader and runs it: a child process gets the memory the loader asked for
// and jumps to the entry. The kernel serves its system calls, so what is tested is the loaded image
// and its first stack.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "dom0-daemon/hypervisor/usermode/loader.h"

namespace xenspan::hypervisor::usermode {

// Guest memory as the loader wrote it. Counts writes that hit no mapping.
struct Image {
  AddressSpace space{std::uint64_t{4} << 30};
  std::vector<std::pair<std::uint64_t, std::string>> writes;
  GuestWriter writer() {
    return [this](std::uint64_t address, const void* from, std::size_t bytes) {
      writes.emplace_back(address, std::string(static_cast<const char*>(from), bytes));
    };
  }
  // Every written byte lies in a mapping.
  bool writes_are_mapped() const;
};

struct Outcome {
  int status = -1;  // exit status, or 128 + signal
  std::string output;
};
Outcome run(const Image& image, const Entry& entry);

// A program that is built beside the test, or "" when this build has none of the kind.
std::string built_program(const std::string& name);

}  // namespace xenspan::hypervisor::usermode
