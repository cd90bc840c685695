// dom0-daemon/hypervisor/usermode/elf_file.h, loader.h and symbols.h: a user's file. What is
// accepted has its segments in the file and in order; the loader writes only where it has mapped;
// names are found for any address.
//
// Input: the file.
#include <sys/mman.h>
#include <unistd.h>

#include "dom0-daemon/hypervisor/usermode/elf_file.h"
#include "dom0-daemon/hypervisor/usermode/loader.h"
#include "dom0-daemon/hypervisor/usermode/symbols.h"
#include "dom0-daemon/hypervisor/usermode/window.h"
#include "tests/fuzz/demand.h"

namespace xenspan::hypervisor::usermode {
namespace {

void check_file(const ElfFile& file) {
  DEMAND(!file.loads().empty() && file.low() < file.high());
  DEMAND((file.alignment() & (file.alignment() - 1)) == 0 && file.alignment() >= dsm::kPageSize);
  std::uint64_t last = 0;
  for (const Elf64_Phdr& load : file.loads()) {
    DEMAND(load.p_vaddr >= last && load.p_memsz > 0 && load.p_filesz <= load.p_memsz);
    DEMAND(load.p_offset <= file.size() && load.p_filesz <= file.size() - load.p_offset);
    last = load.p_vaddr + load.p_memsz;
    DEMAND(last > load.p_vaddr && last <= file.high());
  }
  const std::uint64_t headers = file.headers_address();
  DEMAND(headers == 0 || (headers >= file.low() && headers < file.high()));
  char byte;
  DEMAND(!file.read(&byte, file.size(), 1) && !file.read(&byte, ~std::uint64_t{0}, 1));
}

void load_and_name(const std::string& path) {
  AddressSpace space(std::uint64_t{1} << 32);
  Program program;
  program.path = path;
  program.arguments = {"program"};
  const auto entry =
      load(program, space, [&space](std::uint64_t address, const void*, std::size_t bytes) {
        DEMAND(bytes > 0 && in_window(address) && bytes <= kWindowEnd - address);
        DEMAND(space.find(address) != nullptr && space.find(address + bytes - 1) != nullptr);
      });
  Symbols symbols;
  for (const Mapping& mapping : space.overlapping({kWindowStart, kWindowEnd})) {
    for (const std::uint64_t address :
         {mapping.range.start, mapping.range.start + 0x80, mapping.range.end - 1})
      DEMAND(!symbols.describe(space, address).empty());
  }
  if (!entry) {
    DEMAND(!entry.error().message.empty() && entry.error().code != 0);
    return;
  }
  DEMAND(space.find(entry->pc) != nullptr && space.find(entry->sp) != nullptr);
  DEMAND(in_window(entry->brk_start) || entry->brk_start == kWindowEnd);
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace xenspan;
  using namespace xenspan::hypervisor::usermode;
  static const UniqueFd memory(::memfd_create("elf", MFD_CLOEXEC));
  DEMAND(memory && ::ftruncate(memory.get(), 0) == 0);
  DEMAND(::pwrite(memory.get(), data, size, 0) == static_cast<ssize_t>(size));
  const std::string path = "/proc/self/fd/" + std::to_string(memory.get());
  const auto file = ElfFile::open(path);
  if (!file) {
    DEMAND(file.error().message.starts_with(path) && file.error().code != 0);
    return 0;
  }
  check_file(*file);
  // A file that names an interpreter would have another file opened, any one.
  if (!file->interpreter()) load_and_name(path);
  return 0;
}
