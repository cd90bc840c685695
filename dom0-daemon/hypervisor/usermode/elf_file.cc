#include "dom0-daemon/hypervisor/usermode/elf_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include "dsm-rdma/types.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint64_t kPageMask = dsm::kPageSize - 1;
constexpr std::uint64_t kMaxAddress = std::uint64_t{1} << 47;
// The kernel's limit on the size of the program headers.
constexpr std::size_t kMaxHeaderBytes = 65536;

std::string machine_name(unsigned machine) {
  switch (machine) {
    case EM_AARCH64: return "aarch64";
    case EM_ARM: return "arm";
    case EM_RISCV: return "riscv";
    case EM_PPC: return "powerpc";
    case EM_PPC64: return "ppc64";
    case EM_S390: return "s390x";
    case EM_MIPS: return "mips";
    case EM_SPARC: return "sparc";
    case EM_SPARCV9: return "sparc64";
    case EM_IA_64: return "ia64";
    case EM_ALPHA: return "alpha";
    case EM_PARISC: return "hppa";
    case EM_68K: return "m68k";
    case EM_SH: return "sh";
    case 258: return "loongarch";
    default: return fmt::format("ELF machine number {}", machine);
  }
}

}  // namespace

Error ElfFile::not_valid(const std::string& why) const {
  return {ENOEXEC, fmt::format("{} is not a valid ELF executable: {}", path_, why)};
}

Result<ElfFile> ElfFile::open(const std::string& path) {
  ElfFile file;
  file.path_ = path;
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  file.fd_.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file.fd_) {
    const int error = errno;
    return system_error(error, path,
                        error == EACCES ? "give the invoking user read permission" : std::string());
  }
  struct stat status {};
  if (fstat(file.fd_.get(), &status) != 0) return system_error(errno, path);
  if (S_ISDIR(status.st_mode)) {
    return Error{EACCES, path + " is a directory: name a program"};
  }
  if (!S_ISREG(status.st_mode)) {
    return Error{EACCES, path + " is not a regular file: name a program"};
  }
  file.size_ = static_cast<std::uint64_t>(status.st_size);
  if (Status status_of = file.check_header(); !status_of) return status_of.error();
  if (Status status_of = file.read_segments(); !status_of) return status_of.error();
  if (Status status_of = file.check_loads(); !status_of) return status_of.error();
  if (Status status_of = file.read_interpreter(); !status_of) return status_of.error();
  return file;
}

bool ElfFile::read(void* to, std::uint64_t offset, std::size_t bytes) const {
  if (offset > size_ || bytes > size_ - offset) return false;
  auto* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = pread(fd_.get(), at, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    offset += static_cast<std::uint64_t>(got);
    bytes -= static_cast<std::size_t>(got);
  }
  return true;
}

Status ElfFile::check_header() {
  unsigned char ident[20] = {};  // up to e_machine, which lies at the same place in 32-bit files
  if (!read(ident, 0, sizeof ident) || std::memcmp(ident, ELFMAG, SELFMAG) != 0) {
    return Error{ENOEXEC, path_ + " is not an ELF executable"};
  }
  const bool big = ident[EI_DATA] == ELFDATA2MSB;
  const unsigned machine = big ? ident[18] << 8 | ident[19] : ident[19] << 8 | ident[18];
  if (machine != EM_X86_64 && machine != EM_386) {
    return Error{ENOEXEC,
                 fmt::format("{} is a program for {}; xenspan runs 64-bit x86-64 programs: "
                             "rebuild it for x86-64",
                             path_, machine_name(machine))};
  }
  if (ident[EI_CLASS] == ELFCLASS32 || machine == EM_386) {
    return Error{ENOEXEC, path_ +
                              " is a 32-bit program; xenspan runs 64-bit x86-64 programs: "
                              "rebuild with -m64"};
  }
  if (ident[EI_CLASS] != ELFCLASS64 || ident[EI_DATA] != ELFDATA2LSB ||
      ident[EI_VERSION] != EV_CURRENT) {
    return not_valid("its identification bytes are wrong");
  }
  if (!read(&header_, 0, sizeof header_)) return not_valid("the file is shorter than its header");
  switch (header_.e_type) {
    case ET_EXEC:
    case ET_DYN: return {};
    case ET_REL: return Error{ENOEXEC, path_ + " is an object file, not a program: link it first"};
    case ET_CORE: return Error{ENOEXEC, path_ + " is a core dump, not a program"};
    default: return not_valid(fmt::format("its type is {}", header_.e_type));
  }
}

Status ElfFile::read_segments() {
  if (header_.e_phentsize != sizeof(Elf64_Phdr)) {
    return not_valid(fmt::format("a program header has {} bytes", header_.e_phentsize));
  }
  const std::size_t bytes = std::size_t{header_.e_phnum} * sizeof(Elf64_Phdr);
  if (bytes == 0 || bytes > kMaxHeaderBytes) {
    return not_valid(fmt::format("it has {} program headers", header_.e_phnum));
  }
  segments_.resize(header_.e_phnum);
  if (!read(segments_.data(), header_.e_phoff, bytes)) {
    return not_valid("its program headers lie outside the file");
  }
  return {};
}

Status ElfFile::check_loads() {
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type != PT_LOAD || segment.p_memsz == 0) continue;
    if (segment.p_filesz > segment.p_memsz) {
      return not_valid("a segment is larger in the file than in memory");
    }
    if (segment.p_offset > size_ || segment.p_filesz > size_ - segment.p_offset) {
      return not_valid("a segment lies outside the file; is the file cut off?");
    }
    if (segment.p_vaddr > kMaxAddress || segment.p_memsz > kMaxAddress - segment.p_vaddr) {
      return not_valid(
          fmt::format("a segment lies at {:#x}, outside user memory", segment.p_vaddr));
    }
    if (((segment.p_vaddr ^ segment.p_offset) & kPageMask) != 0) {
      return not_valid("a segment's address and file offset do not agree");
    }
    if ((segment.p_align & (segment.p_align - 1)) != 0) {
      return not_valid("a segment's alignment is not a power of two");
    }
    loads_.push_back(segment);
  }
  if (loads_.empty()) return not_valid("it has no loadable segment");
  std::sort(loads_.begin(), loads_.end(),
            [](const Elf64_Phdr& a, const Elf64_Phdr& b) { return a.p_vaddr < b.p_vaddr; });
  for (std::size_t i = 1; i < loads_.size(); ++i) {
    const std::uint64_t end = loads_[i - 1].p_vaddr + loads_[i - 1].p_memsz;
    if (((end + kPageMask) & ~kPageMask) > (loads_[i].p_vaddr & ~kPageMask)) {
      return not_valid("its segments overlap");
    }
  }
  return {};
}

Status ElfFile::read_interpreter() {
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type != PT_INTERP) continue;
    if (segment.p_filesz < 2 || segment.p_filesz > PATH_MAX) {
      return not_valid("the length of its interpreter's name is wrong");
    }
    std::string name(segment.p_filesz, '\0');
    if (!read(name.data(), segment.p_offset, name.size())) {
      return not_valid("its interpreter's name lies outside the file");
    }
    if (name.back() != '\0') return not_valid("its interpreter's name has no end");
    interpreter_ = name.c_str();
    return {};
  }
  return {};
}

bool ElfFile::wants_executable_stack() const {
  return std::any_of(segments_.begin(), segments_.end(), [](const Elf64_Phdr& segment) {
    return segment.p_type == PT_GNU_STACK && (segment.p_flags & PF_X) != 0;
  });
}

std::uint64_t ElfFile::headers_address() const {
  for (const Elf64_Phdr& load : loads_) {
    if (header_.e_phoff >= load.p_offset && header_.e_phoff - load.p_offset < load.p_filesz) {
      return load.p_vaddr + (header_.e_phoff - load.p_offset);
    }
  }
  return 0;
}

std::uint64_t ElfFile::low() const { return loads_.front().p_vaddr & ~kPageMask; }

std::uint64_t ElfFile::high() const {
  const Elf64_Phdr& last = loads_.back();
  return (last.p_vaddr + last.p_memsz + kPageMask) & ~kPageMask;
}

std::uint64_t ElfFile::alignment() const {
  std::uint64_t largest = dsm::kPageSize;
  for (const Elf64_Phdr& load : loads_) largest = std::max(largest, load.p_align);
  return largest;
}

}  // namespace xenspan::hypervisor::usermode
