#include "dom0-daemon/daemon/cluster_key.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "base/unique_fd.h"
#include "dom0-daemon/daemon/names.h"

namespace xenspan::daemon {
namespace {

constexpr std::string_view kHeader = "xenspan cluster key v1\n";
constexpr std::size_t kHexDigits = 64;

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

std::string ClusterKey::id() const {
  // A prefix keeps this hash apart from any other use of the key.
  std::string input = "xenspan cluster key id";
  input.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  unsigned char hash[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(input.data()), input.size(), hash);
  std::string text;
  for (int i = 0; i < 8; ++i) text += fmt::format("{:02x}", hash[i]);
  return text;
}

Status make_cluster_key(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd && errno == EEXIST)
    return Error{EEXIST, fmt::format("{} exists: a new key would cut off the hosts that use it; "
                                     "remove the file first if you mean it",
                                     path)};
  if (!fd)
    return system_error(errno, "cannot create " + path, "choose a file in a writable directory");
  const std::string text = std::string(kHeader) + random_hex(kHexDigits / 2) + "\n";
  if (write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      fsync(fd.get()) != 0) {
    const Error error = system_error(errno, "cannot write " + path, "is the disk full?");
    unlink(path.c_str());
    return error;
  }
  return {};
}

Result<ClusterKey> read_cluster_key(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd)
    return system_error(
        errno, "cannot read the cluster key " + path,
        "make one with `xenspan cluster-key " + path + "`, or copy it from another host");
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return system_error(errno, "cannot examine " + path);
  if ((info.st_mode & 077) != 0)
    return Error{EPERM, fmt::format("{} can be read by others: run chmod 600 {}", path, path)};
  char text[256];
  const ssize_t got = read(fd.get(), text, sizeof text);
  if (got < 0) return system_error(errno, "cannot read " + path);
  std::string_view rest(text, static_cast<std::size_t>(got));
  const Error bad{EBADMSG, fmt::format("{} is not a cluster key of this xenspan version: make one "
                                       "with `xenspan cluster-key`",
                                       path)};
  if (!rest.starts_with(kHeader)) return bad;
  rest.remove_prefix(kHeader.size());
  if (!rest.empty() && rest.back() == '\n') rest.remove_suffix(1);
  if (rest.size() != kHexDigits) return bad;
  ClusterKey key;
  for (std::size_t i = 0; i < key.bytes.size(); ++i) {
    const int high = hex_value(rest[2 * i]);
    const int low = hex_value(rest[2 * i + 1]);
    if (high < 0 || low < 0) return bad;
    key.bytes[i] = static_cast<unsigned char>(high << 4 | low);
  }
  return key;
}

}  // namespace xenspan::daemon
