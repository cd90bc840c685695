#include "dom0-daemon/hypervisor/usermode/io/descriptors.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dom0-daemon/hypervisor/usermode/io/system_call.h"

namespace xenspan::hypervisor::usermode::io {
namespace {

bool is_absolute(const Invocation::Item& path) {
  return path.sent != nullptr && path.sent[0] == '/';
}

// Limits of this kind stop at the guest: applied to the home's process they would take its own
// memory and threads away.
bool is_withheld(unsigned resource) {
  switch (resource) {
    case RLIMIT_AS:
    case RLIMIT_DATA:
    case RLIMIT_STACK:
    case RLIMIT_RSS:
    case RLIMIT_MEMLOCK:
    case RLIMIT_NPROC:
    case RLIMIT_NOFILE: return true;
    default: return false;
  }
}

std::int64_t get_limit(const HomeIo& home, unsigned resource, rlimit& limit) {
  const std::int64_t result = call(SYS_prlimit64, 0, resource, nullptr, &limit);
  if (result == 0 && resource == RLIMIT_NOFILE) {
    const auto most = static_cast<rlim_t>(home.descriptor_limit);
    limit.rlim_cur = std::min(limit.rlim_cur, most);
    limit.rlim_max = std::min(limit.rlim_max, most);
  }
  return result;
}

std::int64_t set_limit(const HomeIo& home, unsigned resource, const rlimit& wanted) {
  if (!is_withheld(resource)) return call(SYS_prlimit64, 0, resource, &wanted, nullptr);
  if (wanted.rlim_cur > wanted.rlim_max) return -EINVAL;
  rlimit now{};
  const std::int64_t error = get_limit(home, resource, now);
  if (error != 0) return error;
  return wanted.rlim_max > now.rlim_max ? -EPERM : 0;
}

}  // namespace

int check_descriptors(const HomeIo& home, Invocation& invocation) {
  for (unsigned i = 0; i < 6; ++i) {
    const Kind kind = invocation.info.args[i].kind;
    if (kind != Kind::kDescriptor && kind != Kind::kDirectory) continue;
    if (!is_hidden(home, static_cast<std::int64_t>(invocation.args[i]))) continue;
    if (kind == Kind::kDescriptor || i == 5 || !is_absolute(invocation.items[i + 1])) return -EBADF;
    invocation.args[i] = static_cast<std::uint64_t>(AT_FDCWD);  // an absolute path needs no folder
  }
  return 0;
}

std::int64_t keep_below_limit(const HomeIo& home, std::int64_t result) {
  if (result < 0 || !is_hidden(home, result)) return result;
  call(SYS_close, result);
  return -EMFILE;
}

std::int64_t run_pair(const HomeIo& home, Invocation& invocation) {
  const std::int64_t result = run_plain(home, invocation);
  if (result < 0) return result;
  const unsigned at = invocation.number == SYS_socketpair ? 3 : 0;
  int pair[2];
  std::memcpy(pair, invocation.pointer<int>(at), sizeof pair);
  if (!is_hidden(home, pair[0]) && !is_hidden(home, pair[1])) return result;
  call(SYS_close, pair[0]);
  call(SYS_close, pair[1]);
  return -EMFILE;
}

std::int64_t run_dup2(const HomeIo& home, Invocation& invocation) {
  if (is_hidden(home, invocation.int_arg(1))) return -EBADF;
  return run_plain(home, invocation);
}

std::int64_t run_dup_from(const HomeIo& home, Invocation& invocation) {
  if (is_hidden(home, invocation.int_arg(2))) {
    const std::int64_t open = call(SYS_fcntl, invocation.args[0], F_GETFD, 0);
    return open < 0 ? open : -EINVAL;  // as above RLIMIT_NOFILE
  }
  return run_plain(home, invocation);
}

std::int64_t run_close_range(const HomeIo& home, Invocation& invocation) {
  const auto first = static_cast<std::uint32_t>(invocation.args[0]);
  const auto last = static_cast<std::uint32_t>(invocation.args[1]);
  const auto flags = static_cast<std::uint32_t>(invocation.args[2]);
  // CLOSE_RANGE_UNSHARE would give this one thread a descriptor table of its own.
  if (first > last || (flags & ~std::uint32_t{CLOSE_RANGE_CLOEXEC}) != 0) return -EINVAL;
  const auto end = static_cast<std::uint32_t>(home.descriptor_limit);
  if (first >= end) return 0;
  return call(SYS_close_range, first, std::min(last, end - 1), flags);
}

std::int64_t run_clone_range(const HomeIo& home, Invocation& invocation) {
  file_clone_range range;
  if (invocation.args[2] != 0) {
    std::memcpy(&range, invocation.pointer<void>(2), sizeof range);
    if (is_hidden(home, range.src_fd)) return -EBADF;
  }
  return run_plain(home, invocation);
}

std::int64_t run_poll(const HomeIo& home, Invocation& invocation) {
  auto* fds = invocation.pointer<pollfd>(0);
  const auto count = static_cast<std::uint32_t>(invocation.args[1]);
  if (count > static_cast<std::uint32_t>(home.descriptor_limit))
    return -EINVAL;  // as above RLIMIT_NOFILE
  if (fds == nullptr) return run_plain(home, invocation);
  int hidden = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (!is_hidden(home, fds[i].fd)) continue;
    fds[i].fd = -1;
    ++hidden;
  }
  if (hidden == 0) return run_plain(home, invocation);
  const timespec now{};  // a descriptor that does not exist is an event: do not wait
  invocation.args[2] = invocation.number == SYS_poll ? 0 : word(&now);
  const std::int64_t result = run_plain(home, invocation);
  const auto* asked = reinterpret_cast<const pollfd*>(invocation.items[0].sent);
  for (std::uint32_t i = 0; i < count; ++i) {
    if (!is_hidden(home, asked[i].fd)) continue;
    fds[i].fd = asked[i].fd;
    fds[i].revents = POLLNVAL;
  }
  return result < 0 ? result : result + hidden;
}

std::int64_t run_select(const HomeIo& home, Invocation& invocation) {
  // Linux looks at no more descriptors than the process's table has.
  invocation.args[0] = word(std::min(invocation.int_arg(0), home.descriptor_limit));
  return run_plain(home, invocation);
}

std::int64_t run_getrlimit(const HomeIo& home, Invocation& invocation) {
  auto* limit = invocation.pointer<rlimit>(1);
  if (limit == nullptr) return -EFAULT;
  return get_limit(home, static_cast<unsigned>(invocation.args[0]), *limit);
}

std::int64_t run_setrlimit(const HomeIo& home, Invocation& invocation) {
  const auto* limit = invocation.pointer<const rlimit>(1);
  if (limit == nullptr) return -EFAULT;
  return set_limit(home, static_cast<unsigned>(invocation.args[0]), *limit);
}

std::int64_t run_prlimit(const HomeIo& home, Invocation& invocation) {
  const int pid = invocation.int_arg(0);
  if (pid != 0 && pid != ::getpid()) return -EPERM;
  const auto resource = static_cast<unsigned>(invocation.args[1]);
  const auto* wanted = invocation.pointer<const rlimit>(2);
  auto* old = invocation.pointer<rlimit>(3);
  rlimit before{};
  std::int64_t result = get_limit(home, resource, before);
  if (result == 0 && wanted != nullptr) result = set_limit(home, resource, *wanted);
  if (result == 0 && old != nullptr) *old = before;
  return result;
}

}  // namespace xenspan::hypervisor::usermode::io
