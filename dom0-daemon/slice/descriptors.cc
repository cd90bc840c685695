#include "dom0-daemon/slice/descriptors.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"

namespace xenspan::slice {
namespace {
constexpr rlim_t kOwnDescriptors = 8192;  // connections: peers x lanes, lines of threads
}

Status occupy_guest_descriptors(UniqueFd& kept) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = kGuestDescriptors + kOwnDescriptors;
  limit.rlim_max = std::max(limit.rlim_max, limit.rlim_cur);
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0)
    return system_error(
        errno, "cannot raise the number of open files to " + std::to_string(limit.rlim_cur),
        "raise LimitNOFILE of xenspand");
  const int moved = ::fcntl(kept.get(), F_DUPFD_CLOEXEC, kGuestDescriptors);
  const int output = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, kGuestDescriptors);
  if (moved < 0 || output < 0) return system_error(errno, "cannot move descriptors");
  kept.reset(moved);
  log::set_descriptor(output);
  UniqueFd filler(::open("/dev/null", O_RDWR | O_CLOEXEC));
  UniqueFd high(::fcntl(filler.get(), F_DUPFD_CLOEXEC, kGuestDescriptors));
  for (int number = 0; number < kGuestDescriptors; ++number)
    if (number != filler.get() && ::dup3(high.get(), number, O_CLOEXEC) < 0)
      return system_error(errno, "cannot reserve the guest's descriptors");
  // The last one is filled by keeping the filler itself open: UniqueFd must not close it.
  filler.release();
  return {};
}

Status release_guest_descriptors(const std::vector<int>& numbers, std::vector<UniqueFd> given) {
  if (numbers.size() != given.size())
    return Error{EPROTO, "xenspand named " + std::to_string(numbers.size()) +
                             " descriptors and passed " + std::to_string(given.size())};
  ::close_range(0, kGuestDescriptors - 1, 0);
  for (std::size_t i = 0; i < given.size(); ++i) {
    if (numbers[i] < 0 || numbers[i] >= kGuestDescriptors) continue;
    if (::dup2(given[i].get(), numbers[i]) < 0)
      return system_error(errno,
                          "cannot give the program descriptor " + std::to_string(numbers[i]));
  }
  return {};
}

}  // namespace xenspan::slice
