#include "dom0-daemon/hypervisor/usermode/loader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "dom0-daemon/hypervisor/usermode/elf_file.h"
#include "dom0-daemon/hypervisor/usermode/initial_stack.h"
#include "dom0-daemon/hypervisor/usermode/window.h"

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint64_t kPageMask = dsm::kPageSize - 1;
constexpr std::size_t kCopyChunk = 1 << 20;
constexpr std::size_t kMaxString = 32 * dsm::kPageSize;  // the kernel's MAX_ARG_STRLEN
constexpr std::size_t kRandomBytes = 16;
// kPieBase and kInterpreterBase are multiples of this; a file that asks for more does not get it.
constexpr std::uint64_t kMaxAlignment = std::uint64_t{1} << 32;

constexpr std::uint64_t page_down(std::uint64_t address) { return address & ~kPageMask; }
constexpr std::uint64_t page_up(std::uint64_t address) {
  return (address + kPageMask) & ~kPageMask;
}

int protection(const Elf64_Phdr& segment) {
  return ((segment.p_flags & PF_R) != 0 ? PROT_READ : 0) |
         ((segment.p_flags & PF_W) != 0 ? PROT_WRITE : 0) |
         ((segment.p_flags & PF_X) != 0 ? PROT_EXEC : 0);
}

// Maps at exactly this place. What goes wrong here is the program's size or place, so the error
// says so.
Status map_fixed(AddressSpace& space, Range range, int prot, std::uint64_t offset,
                 const std::string& name, const std::string& program) {
  const Change change =
      space.mmap(range.start, range.bytes(), prot,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, offset, name);
  if (change.result >= 0) return {};
  if (change.result == -EEXIST) {
    return Error{ENOEXEC, fmt::format("{}: its memory at {:#x} is taken by another segment",
                                      program, range.start)};
  }
  return Error{ENOMEM,
               fmt::format("{} needs {} more bytes than the domain's memory allows: give it "
                           "more with --memory",
                           program, range.bytes())};
}

Status copy_segment(const ElfFile& file, const Elf64_Phdr& segment, std::uint64_t bias,
                    const GuestWriter& write) {
  std::vector<std::uint8_t> buffer(std::min<std::uint64_t>(segment.p_filesz, kCopyChunk));
  for (std::uint64_t done = 0; done < segment.p_filesz;) {
    const std::size_t bytes = std::min<std::uint64_t>(segment.p_filesz - done, buffer.size());
    if (!file.read(buffer.data(), segment.p_offset + done, bytes)) {
      return Error{EIO, file.path() + " cannot be read: it changed or its disk failed"};
    }
    write(bias + segment.p_vaddr + done, buffer.data(), bytes);
    done += bytes;
  }
  return {};
}

Status map_segment(const ElfFile& file, const Elf64_Phdr& segment, std::uint64_t bias,
                   AddressSpace& space, const GuestWriter& write) {
  const std::uint64_t start = bias + segment.p_vaddr;
  const Range from_file{page_down(start), page_up(start + segment.p_filesz)};
  const Range whole{page_down(start), page_up(start + segment.p_memsz)};
  const std::uint64_t zeroes = segment.p_filesz == 0 ? whole.start : from_file.end;
  if (segment.p_filesz > 0) {
    const Status mapped = map_fixed(space, from_file, protection(segment),
                                    page_down(segment.p_offset), file.path(), file.path());
    if (!mapped) return mapped;
  }
  if (zeroes < whole.end) {
    const Status mapped =
        map_fixed(space, {zeroes, whole.end}, protection(segment), 0, "", file.path());
    if (!mapped) return mapped;
  }
  return copy_segment(file, segment, bias, write);
}

// Maps all segments with the first one at `base` (position-independent files) or where the file
// says. Returns the bias.
Result<std::uint64_t> map_file(const ElfFile& file, std::uint64_t base, AddressSpace& space,
                               const GuestWriter& write) {
  const std::uint64_t unit = std::min(file.alignment(), kMaxAlignment);
  const std::uint64_t bias = file.position_independent() ? base - (file.low() & ~(unit - 1)) : 0;
  const std::uint64_t low = bias + file.low(), high = bias + file.high();
  if (low < kWindowStart || high > kWindowEnd || low >= high) {
    return Error{ENOEXEC, fmt::format("{} wants memory from {:#x} to {:#x}, outside the guest's "
                                      "{:#x} to {:#x}: link it at another address, or with -pie",
                                      file.path(), low, high, kWindowStart, kWindowEnd)};
  }
  for (const Elf64_Phdr& segment : file.loads()) {
    const Status mapped = map_segment(file, segment, bias, space, write);
    if (!mapped) return mapped.error();
  }
  return bias;
}

bool in_segments(const ElfFile& file, std::uint64_t address) {
  return std::any_of(file.loads().begin(), file.loads().end(), [address](const Elf64_Phdr& load) {
    return (load.p_flags & PF_X) != 0 && address >= load.p_vaddr &&
           address - load.p_vaddr < load.p_memsz;
  });
}

Status check_entry(const ElfFile& file) {
  if (in_segments(file, file.header().e_entry)) return {};
  if (file.header().e_entry == 0) {
    return Error{ENOEXEC, file.path() + " is a shared library, not a program: name a program"};
  }
  return Error{ENOEXEC, file.path() +
                            " is not a valid ELF executable: its entry point lies "
                            "outside its code"};
}

Result<ElfFile> open_program(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    const int error = errno == ENOTDIR ? ENOENT : errno;
    return system_error(error, path, "check the name and the path");
  }
  if (S_ISREG(status.st_mode) && faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) != 0) {
    return Error{EACCES, fmt::format("{}: no execute permission: run `chmod +x {}`", path, path)};
  }
  return ElfFile::open(path);
}

Result<ElfFile> open_interpreter(const ElfFile& program) {
  const std::string& name = *program.interpreter();
  if (access(name.c_str(), F_OK) != 0) {
    return Error{ENOENT, fmt::format("{} needs the interpreter {}, which is not there: install the "
                                     "Debian package libc6, or link the program statically",
                                     program.path(), name)};
  }
  return ElfFile::open(name);
}

Status check_arguments(const Program& program, const StackContents& contents) {
  const auto too_long = [](const std::string& string) { return string.size() >= kMaxString; };
  const bool long_string =
      std::any_of(contents.arguments.begin(), contents.arguments.end(), too_long) ||
      std::any_of(contents.environment.begin(), contents.environment.end(), too_long);
  if (!long_string && stack_bytes_for(contents) <= kStackBytes / 4) return {};
  return Error{E2BIG,
               fmt::format("{}: its arguments and environment are too large; the limit is {} "
                           "bytes in all and {} for one: pass them in a file",
                           program.path, kStackBytes / 4, kMaxString)};
}

struct Placed {
  std::uint64_t program_bias = 0;
  std::optional<std::uint64_t> interpreter_bias;
};

void add_auxiliary(const Program& program, const ElfFile& file, const Placed& placed,
                   StackContents& contents) {
  const std::uint64_t headers = file.headers_address();
  contents.numbers = {
      {AT_HWCAP, program.hwcap != 0 ? program.hwcap : getauxval(AT_HWCAP)},
      {AT_PAGESZ, dsm::kPageSize},
      {AT_CLKTCK, static_cast<std::uint64_t>(sysconf(_SC_CLK_TCK))},
      {AT_PHDR, headers != 0 ? placed.program_bias + headers : 0},
      {AT_PHENT, sizeof(Elf64_Phdr)},
      {AT_PHNUM, file.header().e_phnum},
      {AT_BASE, placed.interpreter_bias.value_or(0)},
      {AT_FLAGS, 0},
      {AT_ENTRY, placed.program_bias + file.header().e_entry},
      {AT_UID, program.uid},
      {AT_EUID, program.uid},
      {AT_GID, program.gid},
      {AT_EGID, program.gid},
      {AT_SECURE, 0},
      {AT_HWCAP2, program.hwcap2 != 0 ? program.hwcap2 : getauxval(AT_HWCAP2)},
  };
  // A kernel before 5.14 does not tell; then glibc uses its own constant.
  if (const std::uint64_t bytes = getauxval(AT_MINSIGSTKSZ)) {
    contents.numbers.emplace_back(AT_MINSIGSTKSZ, bytes);
  }
}

Result<std::vector<std::uint8_t>> random_bytes() {
  std::vector<std::uint8_t> bytes(kRandomBytes);
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return system_error(errno, "random bytes for the program's stack");
  }
  return bytes;
}

}  // namespace

Result<Entry> load(const Program& wanted, AddressSpace& space, const GuestWriter& write) {
  const Result<Program> followed = follow_scripts(wanted);
  if (!followed) return followed.error();
  const Program& program = *followed;

  Result<ElfFile> file = open_program(program.path);
  if (!file) return file.error();
  std::optional<ElfFile> interpreter;
  if (file->interpreter()) {
    Result<ElfFile> opened = open_interpreter(*file);
    if (!opened) return opened.error();
    interpreter = std::move(opened).value();
  }
  const ElfFile& first = interpreter ? *interpreter : *file;
  if (const Status checked = check_entry(*file); !checked) return checked.error();
  if (const Status checked = check_entry(first); !checked) return checked.error();

  StackContents contents;
  contents.arguments = program.arguments;
  contents.environment = program.environment;
  contents.executable = wanted.given.empty() ? wanted.path : wanted.given;
  if (const Status checked = check_arguments(program, contents); !checked) return checked.error();
  Result<std::vector<std::uint8_t>> random = random_bytes();
  if (!random) return random.error();
  contents.random = std::move(random).value();

  Placed placed;
  Result<std::uint64_t> bias = map_file(*file, kPieBase, space, write);
  if (!bias) return bias.error();
  placed.program_bias = *bias;
  if (interpreter) {
    Result<std::uint64_t> interpreter_bias = map_file(*interpreter, kInterpreterBase, space, write);
    if (!interpreter_bias) return interpreter_bias.error();
    placed.interpreter_bias = *interpreter_bias;
  }

  const int stack_rights =
      PROT_READ | PROT_WRITE | (file->wants_executable_stack() ? PROT_EXEC : 0);
  const Status stack = map_fixed(space, {kStackTop - kStackBytes, kStackTop}, stack_rights, 0,
                                 "[stack]", program.path);
  if (!stack) return stack.error();
  add_auxiliary(program, *file, placed, contents);
  const StackImage image = build_stack(contents, kStackTop);
  write(image.sp, image.bytes.data(), image.bytes.size());

  Entry entry;
  entry.pc = first.header().e_entry + placed.interpreter_bias.value_or(placed.program_bias);
  entry.sp = image.sp;
  entry.brk_start = placed.program_bias + file->high();
  entry.auxv = image.auxv;
  space.set_brk_start(entry.brk_start);
  return entry;
}

}  // namespace xenspan::hypervisor::usermode
