#include "dom0-daemon/hypervisor/usermode/symbols.h"

#include <cxxabi.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "dom0-daemon/hypervisor/usermode/elf_file.h"
#include "dsm-rdma/types.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint64_t kPageMask = dsm::kPageSize - 1;
// More than any real program's; a larger table is taken for nonsense rather than read.
constexpr std::uint64_t kMaxTable = std::uint64_t{1} << 30;
constexpr std::size_t kMaxSections = 65535;

struct Symbol {
  std::uint64_t value;  // before relocation
  std::uint64_t bytes;
  std::uint32_t name;  // offset in the string table
};

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::string demangled(const char* name) {
  if (std::strncmp(name, "_Z", 2) != 0) return name;
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), &std::free);
  return status == 0 && text ? text.get() : name;
}

std::string with_offset(const std::string& name, std::uint64_t offset) {
  return offset == 0 ? name : fmt::format("{}+{:#x}", name, offset);
}

bool is_path(const std::string& name) { return !name.empty() && name[0] == '/'; }

// Without symbols.
std::string name_in(const Mapping& mapping, std::uint64_t address) {
  const std::uint64_t offset = address - mapping.range.start;
  if (is_path(mapping.name)) return with_offset(base_name(mapping.name), mapping.offset + offset);
  if (!mapping.name.empty()) return with_offset(mapping.name, offset);
  return with_offset(fmt::format("[anon {:#x}]", mapping.range.start), offset);
}

}  // namespace

// What is known of one file. Not an ELF file, or one without symbols: `loads` or `symbols` are
// empty.
struct Symbols::File {
  std::vector<Elf64_Phdr> loads;
  std::uint64_t low = 0, high = 0;
  std::vector<Symbol> symbols;  // by value
  std::string names;

  explicit File(const std::string& path) {
    Result<ElfFile> elf = ElfFile::open(path);
    if (!elf) return;
    loads = elf->loads();
    low = elf->low();
    high = elf->high();
    read_symbols(*elf);
  }

  void read_symbols(const ElfFile& elf) {
    const Elf64_Ehdr& header = elf.header();
    if (header.e_shentsize != sizeof(Elf64_Shdr) || header.e_shnum == 0 ||
        header.e_shnum > kMaxSections) {
      return;
    }
    std::vector<Elf64_Shdr> sections(header.e_shnum);
    if (!elf.read(sections.data(), header.e_shoff, sections.size() * sizeof(Elf64_Shdr))) return;
    for (const std::uint32_t type : {SHT_SYMTAB, SHT_DYNSYM}) {
      for (const Elf64_Shdr& section : sections) {
        if (section.sh_type == type && read_table(elf, sections, section) && !symbols.empty()) {
          return;
        }
      }
    }
  }

  bool read_table(const ElfFile& elf, const std::vector<Elf64_Shdr>& sections,
                  const Elf64_Shdr& section) {
    if (section.sh_entsize != sizeof(Elf64_Sym) || section.sh_link >= sections.size()) return false;
    const Elf64_Shdr& strings = sections[section.sh_link];
    if (section.sh_size > std::min(elf.size(), kMaxTable) ||
        strings.sh_size > std::min(elf.size(), kMaxTable)) {
      return false;
    }
    std::vector<Elf64_Sym> table(section.sh_size / sizeof(Elf64_Sym));
    names.assign(strings.sh_size, '\0');
    if (!elf.read(table.data(), section.sh_offset, table.size() * sizeof(Elf64_Sym)) ||
        !elf.read(names.data(), strings.sh_offset, names.size())) {
      return false;
    }
    symbols.clear();
    for (const Elf64_Sym& entry : table) {
      const int type = ELF64_ST_TYPE(entry.st_info);
      if ((type != STT_FUNC && type != STT_OBJECT && type != STT_GNU_IFUNC) ||
          entry.st_shndx == SHN_UNDEF || entry.st_name >= names.size() ||
          names[entry.st_name] == '\0') {
        continue;
      }
      symbols.push_back({entry.st_value, entry.st_size, entry.st_name});
    }
    // The last one at an address is the one that is found: of aliases the largest, without leading
    // underscores.
    std::sort(symbols.begin(), symbols.end(), [this](const Symbol& a, const Symbol& b) {
      if (a.value != b.value) return a.value < b.value;
      if (a.bytes != b.bytes) return a.bytes < b.bytes;
      return (names[a.name] == '_') > (names[b.name] == '_');
    });
    return true;
  }

  const Symbol* find(std::uint64_t value) const {
    auto it =
        std::upper_bound(symbols.begin(), symbols.end(), value,
                         [](std::uint64_t v, const Symbol& symbol) { return v < symbol.value; });
    // A symbol that is inside another one (an alias, a label) may end before `value`: look a little
    // further back.
    constexpr int kLookBack = 16;
    for (int i = 0; i < kLookBack && it != symbols.begin(); ++i) {
      --it;
      if (value - it->value < std::max<std::uint64_t>(it->bytes, 1)) return &*it;
    }
    return nullptr;
  }
};

Symbols::Symbols() = default;
Symbols::~Symbols() = default;

const Symbols::File& Symbols::file(const std::string& path) {
  std::unique_ptr<File>& file = files_[path];
  if (!file) file = std::make_unique<File>(path);
  return *file;
}

// The name of `address` in the file `path`, if the address belongs to an image of that file.
std::string Symbols::describe_in_file(const AddressSpace& space, const std::string& path,
                                      std::uint64_t address) {
  const File& known = file(path);
  if (known.loads.empty()) return {};
  // The image starts with the mapping of the first segment.
  const std::uint64_t span = known.high - known.low;
  const std::uint64_t lowest = address > span ? address - span : 0;
  const std::vector<Mapping> mappings = space.overlapping({lowest, address + 1});
  const std::uint64_t first_offset = known.loads.front().p_offset & ~kPageMask;
  for (auto it = mappings.rbegin(); it != mappings.rend(); ++it) {
    if (it->name != path || it->offset != first_offset) continue;
    const std::uint64_t value = address - it->range.start + known.low;
    if (value < known.low || value >= known.high) continue;
    const std::string name = base_name(path);
    if (const Symbol* symbol = known.find(value)) {
      return fmt::format("{} ({})",
                         with_offset(demangled(&known.names[symbol->name]), value - symbol->value),
                         name);
    }
    return fmt::format("{}+{:#x}", name, value);
  }
  return {};
}

std::string Symbols::describe(const AddressSpace& space, std::uint64_t address) {
  const Mapping* mapping = space.find(address);
  if (mapping == nullptr) {
    const Mapping* freed = space.find_freed(address);
    return freed == nullptr ? "unmapped" : name_in(*freed, address) + " (freed)";
  }
  if (is_path(mapping->name)) {
    std::string text = describe_in_file(space, mapping->name, address);
    if (!text.empty()) return text;
  }
  if (!mapping->name.empty()) return name_in(*mapping, address);
  // Zero-initialised variables of a file lie in anonymous memory right after its last segment.
  if (const Mapping* before = space.find(mapping->range.start - 1)) {
    if (is_path(before->name)) {
      std::string text = describe_in_file(space, before->name, address);
      if (!text.empty()) return text;
    }
  }
  return name_in(*mapping, address);
}

}  // namespace xenspan::hypervisor::usermode
