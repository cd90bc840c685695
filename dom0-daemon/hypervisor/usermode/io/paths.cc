#include "dom0-daemon/hypervisor/usermode/io/paths.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstring>
#include <optional>
#include <string_view>

#include "dom0-daemon/hypervisor/usermode/io/descriptors.h"
#include "dom0-daemon/hypervisor/usermode/io/system_call.h"
#include "dom0-daemon/hypervisor/usermode/proc_files.h"

namespace xenspan::hypervisor::usermode::io {
namespace {

bool lies_under(std::string_view path, std::string_view folder) {
  return path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/');
}

bool is_of_interest(std::string_view path) {
  return lies_under(path, "/proc") || lies_under(path, "/sys") || lies_under(path, "/dev/fd");
}

std::string link_text(const std::string& path) {
  char text[PATH_MAX];
  const std::int64_t length = call(SYS_readlink, path.c_str(), text, sizeof text);
  return length > 0 ? std::string(text, static_cast<std::size_t>(length)) : std::string();
}

std::string folder_of(std::int32_t directory) {
  if (directory != AT_FDCWD) return link_text("/proc/self/fd/" + std::to_string(directory));
  char text[PATH_MAX];
  return call(SYS_getcwd, text, sizeof text) > 0 ? text : "";
}

// The whole path when it may concern ProcFiles, else nothing. Costs no system call for an absolute
// path, one for a relative.
std::string interesting_path(std::int32_t directory, const char* path) {
  if (path[0] == '\0') return {};
  std::string whole;
  if (path[0] == '/') {
    whole = normalised(path);
  } else {
    const std::string folder = folder_of(directory);
    if (folder.empty() || folder[0] != '/') return {};
    if (!is_of_interest(folder) && folder != "/" && std::strstr(path, "..") == nullptr) return {};
    whole = normalised(folder + "/" + path);
  }
  return is_of_interest(whole) ? whole : std::string();
}

std::optional<int> number_at(std::string_view text) {
  text = text.substr(0, text.find('/'));
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// /proc/self/fd/N, /proc/PID/task/TID/fdinfo/N, /dev/fd/N of a descriptor the guest does not have.
bool names_hidden_descriptor(const HomeIo& home, const std::string& path) {
  std::string_view rest;
  for (const std::string_view folder : {std::string_view("/fd/"), std::string_view("/fdinfo/")}) {
    const std::size_t at = path.find(folder);
    if (at != std::string::npos) rest = std::string_view(path).substr(at + folder.size());
  }
  if (rest.empty() || lies_under(path, "/sys")) return false;
  const std::optional<int> descriptor = number_at(rest);
  if (!descriptor || !is_hidden(home, *descriptor)) return false;
  if (!lies_under(path, "/proc")) return true;
  const std::optional<int> pid = number_at(std::string_view(path).substr(6));
  return !pid || *pid == ::getpid();  // another process's descriptors are the kernel's affair
}

struct Replacement {
  int error = 0;
  std::optional<ProcFiles::Answer> answer;
};

Replacement consult(const HomeIo& home, std::int32_t directory, const char* path) {
  Replacement replacement;
  const std::string whole = interesting_path(directory, path);
  if (whole.empty()) return replacement;
  if (home.files != nullptr) replacement.answer = home.files->resolve(whole);
  const bool elsewhere =
      replacement.answer && replacement.answer->kind == ProcFiles::Answer::kRedirect;
  if (names_hidden_descriptor(home, elsewhere ? replacement.answer->text : whole))
    replacement.error = -ENOENT;
  return replacement;
}

// Which arguments of a call say the path and its folder.
struct PathArgs {
  unsigned path = 0;
  std::int32_t directory = AT_FDCWD;
  bool has_directory = false;

  explicit PathArgs(const Invocation& invocation) {
    while (path < 5 && invocation.info.args[path].kind != Kind::kPath) ++path;
    has_directory = path > 0 && invocation.info.args[path - 1].kind == Kind::kDirectory;
    if (has_directory) directory = invocation.int_arg(path - 1);
  }
  void replace(Invocation& invocation, const char* text) const {
    invocation.args[path] = word(text);
    if (has_directory) invocation.args[path - 1] = static_cast<std::uint64_t>(AT_FDCWD);
  }
};

// The argument with AT_* flags, or -1.
int flags_arg(std::int64_t number) {
  switch (number) {
    case SYS_newfstatat: return 3;
    case SYS_faccessat2: return 3;
    case SYS_statx: return 2;
    default: return -1;
  }
}

bool follows_links(const Invocation& invocation) {
  const int at = flags_arg(invocation.number);
  if (at >= 0) return (invocation.args[static_cast<unsigned>(at)] & AT_SYMLINK_NOFOLLOW) == 0;
  return invocation.number != SYS_lstat && invocation.number != SYS_lgetxattr &&
         invocation.number != SYS_llistxattr;
}

// Makes the call follow links: its path is about to become one of /proc/self/fd.
void follow_links(Invocation& invocation) {
  const int at = flags_arg(invocation.number);
  if (at >= 0) invocation.args[static_cast<unsigned>(at)] &= ~std::uint64_t{AT_SYMLINK_NOFOLLOW};
  if (invocation.number == SYS_lstat) invocation.number = SYS_stat;
  if (invocation.number == SYS_lgetxattr) invocation.number = SYS_getxattr;
  if (invocation.number == SYS_llistxattr) invocation.number = SYS_listxattr;
}

// A sealed memory file with these bytes, among the hidden descriptors (so that the guest's numbers
// stay free).
UniqueFd sealed_file(const HomeIo& home, const std::string& bytes) {
  UniqueFd file(
      static_cast<int>(call(SYS_memfd_create, "xenspan-proc", MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  if (!file) return {};
  const std::int64_t above = call(SYS_fcntl, file.get(), F_DUPFD_CLOEXEC, home.descriptor_limit);
  if (above >= 0) file.reset(static_cast<int>(above));
  for (std::size_t done = 0; done < bytes.size();) {
    const std::int64_t written =
        call(SYS_pwrite64, file.get(), bytes.data() + done, bytes.size() - done, done);
    if (written <= 0) return {};
    done += static_cast<std::size_t>(written);
  }
  call(SYS_fchmod, file.get(), 0444);
  call(SYS_fcntl, file.get(), F_ADD_SEALS,
       F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
  return file;
}

std::string name_of(const UniqueFd& file) { return "/proc/self/fd/" + std::to_string(file.get()); }

std::uint64_t open_flags(const Invocation& invocation) {
  switch (invocation.number) {
    case SYS_creat: return O_CREAT | O_WRONLY | O_TRUNC;
    case SYS_open: return invocation.args[1];
    case SYS_openat: return invocation.args[2];
    default: {
      open_how how{};
      if (invocation.items[2].sent != nullptr && invocation.items[2].bytes >= sizeof how)
        std::memcpy(&how, invocation.items[2].sent, sizeof how);
      return how.flags;
    }
  }
}

std::int64_t open_contents(const HomeIo& home, std::uint64_t flags, const std::string& bytes) {
  if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL)) return -EEXIST;
  if ((flags & O_DIRECTORY) != 0) return -ENOTDIR;
  if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0) return -EACCES;
  const UniqueFd file = sealed_file(home, bytes);
  if (!file) return -EMFILE;
  return call(SYS_openat, AT_FDCWD, name_of(file).c_str(),
              flags & (O_CLOEXEC | O_NONBLOCK | O_PATH));
}

// The call as it is; or what `replaced` makes of it when ProcFiles has an answer for its path.
template <typename Replaced>
std::int64_t run_with_answer(const HomeIo& home, Invocation& invocation, const Replaced& replaced) {
  const PathArgs args(invocation);
  if (invocation.args[args.path] == 0) return run_plain(home, invocation);
  const Replacement replacement =
      consult(home, args.directory, invocation.pointer<char>(args.path));
  if (replacement.error != 0) return replacement.error;
  if (!replacement.answer) return run_plain(home, invocation);
  return replaced(args, *replacement.answer);
}

}  // namespace

std::string normalised(const std::string& path) {
  std::string whole;
  whole.reserve(path.size());
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t start = path.find_first_not_of('/', at);
    if (start == std::string::npos) break;
    const std::size_t end = std::min(path.find('/', start), path.size());
    const std::string_view part(path.data() + start, end - start);
    if (part == "..") {
      const std::size_t cut = whole.rfind('/');
      whole.resize(cut == std::string::npos ? 0 : cut);
    } else if (part != ".") {
      whole += '/';
      whole += part;
    }
    at = end;
  }
  return whole.empty() ? "/" : whole;
}

std::int64_t run_path(const HomeIo& home, Invocation& invocation) {
  return run_with_answer(
      home, invocation, [&](const PathArgs& args, const ProcFiles::Answer& answer) -> std::int64_t {
        if (answer.kind == ProcFiles::Answer::kLink && !follows_links(invocation))
          return run_plain(home, invocation);
        if (answer.kind != ProcFiles::Answer::kContents) {
          args.replace(invocation, answer.text.c_str());
          return run_plain(home, invocation);
        }
        const UniqueFd file = sealed_file(home, answer.text);
        if (!file) return -EMFILE;
        const std::string name = name_of(file);
        args.replace(invocation, name.c_str());
        follow_links(invocation);
        return run_plain(home, invocation);
      });
}

std::int64_t run_open(const HomeIo& home, Invocation& invocation) {
  return run_with_answer(
      home, invocation, [&](const PathArgs& args, const ProcFiles::Answer& answer) -> std::int64_t {
        const std::uint64_t flags = open_flags(invocation);
        if (answer.kind == ProcFiles::Answer::kContents)
          return open_contents(home, flags, answer.text);
        if (answer.kind == ProcFiles::Answer::kLink && (flags & O_NOFOLLOW) != 0)
          return run_plain(home, invocation);
        args.replace(invocation, answer.text.c_str());
        return run_plain(home, invocation);
      });
}

std::int64_t run_readlink(const HomeIo& home, Invocation& invocation) {
  return run_with_answer(
      home, invocation, [&](const PathArgs& args, const ProcFiles::Answer& answer) -> std::int64_t {
        if (answer.kind == ProcFiles::Answer::kContents) return -EINVAL;  // not a link
        if (answer.kind == ProcFiles::Answer::kRedirect) {
          args.replace(invocation, answer.text.c_str());
          return run_plain(home, invocation);
        }
        const unsigned buffer = args.path + 1;
        const std::size_t room =
            std::min<std::size_t>(invocation.items[buffer].room, answer.text.size());
        if (invocation.args[buffer] == 0) return -EFAULT;
        if (invocation.items[buffer].room == 0) return -EINVAL;
        std::memcpy(invocation.pointer<void>(buffer), answer.text.data(), room);
        return static_cast<std::int64_t>(room);
      });
}

}  // namespace xenspan::hypervisor::usermode::io
