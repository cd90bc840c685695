// Names for addresses: the symbol (ELF .symtab or .dynsym) or the mapping they fall in, for crash
// reports and hot pages. Threading: not thread-safe. Files are read once and kept.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "dom0-daemon/hypervisor/usermode/address_space.h"

namespace xenspan::hypervisor::usermode {

class Symbols {
 public:
  Symbols();
  ~Symbols();
  // "main+0x1c (prog)", "pool (prog)", "libc.so.6+0x9a3b0", "[heap]+0x2340", "[anon
  // 0x8000000000]+0x40", "unmapped". Where nothing is mapped any more, what was, with " (freed)".
  std::string describe(const AddressSpace& space, std::uint64_t address);

 private:
  struct File;
  const File& file(const std::string& path);
  std::string describe_in_file(const AddressSpace& space, const std::string& path,
                               std::uint64_t address);

  std::map<std::string, std::unique_ptr<File>> files_;
};

}  // namespace xenspan::hypervisor::usermode
