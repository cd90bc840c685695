#include "dom0-daemon/hypervisor/usermode/open_files.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "base/bound_file.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr int kMade = O_CREAT | O_EXCL | O_TRUNC;  // for the first time only

std::string link_of(int number) {
  char text[PATH_MAX];
  const std::string link = "/proc/self/fd/" + std::to_string(number);
  const ssize_t bytes = ::readlink(link.c_str(), text, sizeof text);
  return bytes > 0 ? std::string(text, static_cast<std::size_t>(bytes)) : std::string();
}

void describe(const struct stat& status, OpenFile& file) {
  file.mode = status.st_mode;
  file.device = S_ISCHR(status.st_mode) ? status.st_rdev : status.st_dev;
  file.inode = status.st_ino;
  file.bytes = status.st_size;
  file.modified_ns = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

bool same_description(int a, int b) {
  const long pid = ::getpid();
  return ::syscall(SYS_kcmp, pid, pid, KCMP_FILE, a, b) == 0;
}

Error refused(const OpenFile& file, const std::string& why, int code) {
  return Error{code, std::to_string(file.number) + " (" + file.path + ") " + why};
}

}  // namespace

OpenFile look_at(int number) {
  OpenFile file;
  file.number = number;
  file.flags = ::fcntl(number, F_GETFL);
  struct stat status {};
  if (file.flags < 0 || ::fstat(number, &status) != 0) return file;
  file.path = link_of(number);
  file.close_on_exec = (::fcntl(number, F_GETFD) & FD_CLOEXEC) != 0;
  describe(status, file);
  if (S_ISREG(file.mode) || S_ISDIR(file.mode))
    file.offset = std::max<off_t>(::lseek(number, 0, SEEK_CUR), 0);
  return file;
}

OpenFiles look_at_open_files(int limit) {
  OpenFiles found;
  for (int number = 0; number < limit; ++number) {
    OpenFile file = look_at(number);
    if (file.flags < 0) continue;
    if (const std::string why = what_binds("self", number); !why.empty()) {
      found.bound.push_back(std::to_string(number) + " " + why);
      continue;
    }
    for (const OpenFile& earlier : found.files)
      if (file.same_as < 0 && earlier.same_as < 0 && earlier.inode == file.inode &&
          same_description(earlier.number, number))
        file.same_as = earlier.number;
    found.files.push_back(std::move(file));
  }
  return found;
}

Result<UniqueFd> open_again(const OpenFile& file) {
  UniqueFd opened(::open(file.path.c_str(), (file.flags & ~kMade) | O_CLOEXEC | O_NOCTTY));
  if (!opened)
    return refused(file, std::string("cannot be opened: ") + strerrordesc_np(errno), errno);
  struct stat status {};
  if (::fstat(opened.get(), &status) != 0) return refused(file, "cannot be looked at", errno);
  OpenFile here;
  describe(status, here);
  if ((here.mode & S_IFMT) != (file.mode & S_IFMT))
    return refused(file, "is something else", ESTALE);
  if (S_ISCHR(here.mode)) {
    if (here.device != file.device) return refused(file, "is another device", ESTALE);
    return opened;
  }
  // On a file system that hosts share the device's number differs from host to host; the file's is
  // its own. A copy is good for reading.
  const bool same_contents = here.bytes == file.bytes && here.modified_ns == file.modified_ns;
  const bool reads = (file.flags & O_ACCMODE) == O_RDONLY && S_ISREG(file.mode);
  const bool same = here.inode == file.inode && (here.device == file.device || same_contents);
  if (!same && !(reads && same_contents)) return refused(file, "is another file there", ESTALE);
  if (S_ISREG(file.mode) && ::lseek(opened.get(), file.offset, SEEK_SET) < 0)
    return refused(file, "cannot be read from where it was", errno);
  return opened;
}

Status place_open_files(const std::vector<OpenFile>& files, const std::vector<UniqueFd>& opened,
                        int limit) {
  ::close_range(0, static_cast<unsigned>(limit) - 1, 0);
  for (std::size_t i = 0; i < files.size(); ++i) {
    const OpenFile& file = files[i];
    const int from = file.same_as >= 0 ? file.same_as : opened[i].get();
    if (::dup3(from, file.number, file.close_on_exec != 0 ? O_CLOEXEC : 0) < 0)
      return refused(file, "cannot get its number", errno);
  }
  return {};
}

void put(const OpenFile& file, Writer& out) {
  out.put(file.number)
      .put(file.same_as)
      .put(file.flags)
      .put(file.mode)
      .put(file.close_on_exec)
      .put(file.offset)
      .put(file.device)
      .put(file.inode)
      .put(file.bytes)
      .put(file.modified_ns)
      .put(static_cast<std::uint32_t>(file.path.size()))
      .bytes(file.path.data(), file.path.size());
}

std::optional<OpenFile> take_open_file(Reader& in) {
  OpenFile file;
  file.number = in.get<std::int32_t>();
  file.same_as = in.get<std::int32_t>();
  file.flags = in.get<std::int32_t>();
  file.mode = in.get<std::uint32_t>();
  file.close_on_exec = in.get<std::uint8_t>();
  file.offset = in.get<std::int64_t>();
  file.device = in.get<std::uint64_t>();
  file.inode = in.get<std::uint64_t>();
  file.bytes = in.get<std::int64_t>();
  file.modified_ns = in.get<std::int64_t>();
  const auto bytes = in.get<std::uint32_t>();
  if (!in.ok() || bytes > kMostPathBytes) return std::nullopt;
  file.path = in.text(bytes);
  const bool kind = S_ISREG(file.mode) || S_ISDIR(file.mode) || S_ISCHR(file.mode);
  if (!in.ok() || !kind || file.number < 0 || file.offset < 0 || file.close_on_exec > 1 ||
      !file.path.starts_with('/') || file.path.find('\0') != std::string::npos)
    return std::nullopt;
  return file;
}

}  // namespace xenspan::hypervisor::usermode
