#include "tests/unit/layout_programs/run_loaded.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <cstring>

#include "dom0-daemon/hypervisor/usermode/window.h"

namespace xenspan::hypervisor::usermode {
namespace {

[[noreturn]] void become(const Image& image, const Entry& entry) {
  const std::vector<Mapping> mappings = image.space.overlapping({kWindowStart, kWindowEnd});
  for (const Mapping& mapping : mappings) {
    if (mmap(reinterpret_cast<void*>(mapping.range.start), mapping.range.bytes(),
             PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
             0) == MAP_FAILED) {
      _exit(99);
    }
  }
  for (const auto& [address, bytes] : image.writes) {
    std::memcpy(reinterpret_cast<void*>(address), bytes.data(), bytes.size());
  }
  for (const Mapping& mapping : mappings) {
    mprotect(reinterpret_cast<void*>(mapping.range.start), mapping.range.bytes(), mapping.prot);
  }
  asm volatile(
      "mov %0, %%rsp\n\t"
      "xor %%edx, %%edx\n\t"
      "xor %%ebp, %%ebp\n\t"
      "jmp *%1"
      :
      : "r"(entry.sp), "r"(entry.pc)
      : "rdx", "memory");
  __builtin_unreachable();
}

}  // namespace

bool Image::writes_are_mapped() const {
  for (const auto& [address, bytes] : writes) {
    for (std::uint64_t at = address; at < address + bytes.size();) {
      const Mapping* mapping = space.find(at);
      if (mapping == nullptr) return false;
      at = mapping->range.end;
    }
  }
  return true;
}

Outcome run(const Image& image, const Entry& entry) {
  int ends[2];
  if (pipe(ends) != 0) return {};
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    become(image, entry);
  }
  close(ends[1]);
  Outcome result;
  char buffer[4096];
  for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;) {
    result.output.append(buffer, static_cast<std::size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  if (waitpid(child, &status, 0) != child) return result;
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

std::string built_program(const std::string& name) {
  char self[PATH_MAX];
  const ssize_t bytes = readlink("/proc/self/exe", self, sizeof self);
  if (bytes <= 0) return {};
  const std::string path(self, static_cast<std::size_t>(bytes));
  const std::string program = path.substr(0, path.rfind('/')) + "/layout_programs/" + name;
  return access(program.c_str(), X_OK) == 0 ? program : std::string();
}

}  // namespace xenspan::hypervisor::usermode
