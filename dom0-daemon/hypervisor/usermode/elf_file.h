// One ELF file with its header and segments checked: what the loader maps and what symbols are read
// from.
//
// The file is a stranger's: every number in it is checked against the file's size and against
// overflow before use. Errors name the file; their code is what execve(2) would give. Threading:
// not thread-safe.
#pragma once

#include <elf.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace xenspan::hypervisor::usermode {

class ElfFile {
 public:
  // A 64-bit x86-64 program or shared object, with at least one loadable segment.
  static Result<ElfFile> open(const std::string& path);

  const std::string& path() const { return path_; }
  std::uint64_t size() const { return size_; }
  const Elf64_Ehdr& header() const { return header_; }
  const std::vector<Elf64_Phdr>& segments() const { return segments_; }
  // PT_LOAD with bytes in memory, in order of address, on disjoint pages.
  const std::vector<Elf64_Phdr>& loads() const { return loads_; }
  bool position_independent() const { return header_.e_type == ET_DYN; }
  // PT_INTERP, if there is one.
  const std::optional<std::string>& interpreter() const { return interpreter_; }
  bool wants_executable_stack() const;
  // Where the program headers are in memory before relocation, or 0 when no segment holds them.
  std::uint64_t headers_address() const;
  // First and last byte + 1 of the loadable segments, in whole pages, before relocation.
  std::uint64_t low() const;
  std::uint64_t high() const;
  // The largest alignment any segment asks for; a power of two, at least a page.
  std::uint64_t alignment() const;
  // False when the file is shorter or cannot be read.
  bool read(void* to, std::uint64_t offset, std::size_t bytes) const;

 private:
  Status check_header();
  Status read_segments();
  Status check_loads();
  Status read_interpreter();
  Error not_valid(const std::string& why) const;

  std::string path_;
  UniqueFd fd_;
  std::uint64_t size_ = 0;
  Elf64_Ehdr header_{};
  std::vector<Elf64_Phdr> segments_, loads_;
  std::optional<std::string> interpreter_;
};

}  // namespace xenspan::hypervisor::usermode
