// fcntl(2): what each command's argument is.
#include <fcntl.h>
#include <sys/syscall.h>

#include <cerrno>

#include "dom0-daemon/hypervisor/usermode/io/call_info.h"
#include "dom0-daemon/hypervisor/usermode/io/descriptors.h"
#include "dom0-daemon/hypervisor/usermode/io/system_call.h"

namespace xenspan::hypervisor::usermode::io {
namespace {

constexpr std::uint32_t kFlock = sizeof(struct flock), kOwner = 8, kHint = 8;
constexpr int kGetOwnerUids = 17;  // F_GETOWNER_UIDS

std::int64_t run_unknown(const HomeIo&, Invocation& invocation) {
  const std::int64_t open = call(SYS_fcntl, invocation.args[0], F_GETFD, 0);
  return open < 0 ? open : -EINVAL;
}

// clang-format off
constexpr CallInfo kCommands[] = {
  {F_DUPFD,          {fd, val, val}, true, run_dup_from},
  {F_DUPFD_CLOEXEC,  {fd, val, val}, true, run_dup_from},
  {F_GETFD,          {fd, val}},
  {F_SETFD,          {fd, val, val}},
  {F_GETFL,          {fd, val}},
  {F_SETFL,          {fd, val, val}},
  {F_GETLK,          {fd, val, inout_of(kFlock)}},  // POSIX locks are the home process's: all threads of the guest share them
  {F_SETLK,          {fd, val, in_of(kFlock)}},
  {F_SETLKW,         {fd, val, in_of(kFlock)}},
  {F_OFD_GETLK,      {fd, val, inout_of(kFlock)}},
  {F_OFD_SETLK,      {fd, val, in_of(kFlock)}},
  {F_OFD_SETLKW,     {fd, val, in_of(kFlock)}},
  {F_SETOWN,         {fd, val, val}},
  {F_GETOWN,         {fd, val}},
  {F_SETSIG,         {fd, val, val}},
  {F_GETSIG,         {fd, val}},
  {F_SETOWN_EX,      {fd, val, in_of(kOwner)}},
  {F_GETOWN_EX,      {fd, val, out_of(kOwner)}},
  {kGetOwnerUids,    {fd, val, out_of(2 * sizeof(uid_t))}},
  {F_SETLEASE,       {fd, val, val}},
  {F_GETLEASE,       {fd, val}},
  {F_NOTIFY,         {fd, val, val}},
  {F_SETPIPE_SZ,     {fd, val, val}},
  {F_GETPIPE_SZ,     {fd, val}},
  {F_ADD_SEALS,      {fd, val, val}},
  {F_GET_SEALS,      {fd, val}},
  {F_GET_RW_HINT,      {fd, val, out_of(kHint)}},
  {F_SET_RW_HINT,      {fd, val, in_of(kHint)}},
  {F_GET_FILE_RW_HINT, {fd, val, out_of(kHint)}},
  {F_SET_FILE_RW_HINT, {fd, val, in_of(kHint)}},
};
constexpr CallInfo kUnknown{0, {fd, val, null}, false, run_unknown};
// clang-format on

}  // namespace

const CallInfo& describe_fcntl(std::uint64_t command) {
  for (const CallInfo& info : kCommands)
    if (info.number == static_cast<int>(command)) return info;
  return kUnknown;
}

}  // namespace xenspan::hypervisor::usermode::io
