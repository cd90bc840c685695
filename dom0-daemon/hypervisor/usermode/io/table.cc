// Every system call that belongs to the home, in order of family. The vocabulary is call_info.h's:
//
//   val fd dirfd text path null     a value, a descriptor, a folder, a string, a path, nothing
//   in_of(n) out_of(n) inout_of(n)  a structure of n bytes
//   in(k) out(k)                    a buffer of as many bytes as argument k says (out: the result
//   says how many came) out_var(k), length_ptr          a buffer whose length argument k points at,
//   and that length
//
// Missing arguments are values. Not here, because the runtime answers them: memory mapping,
// futex(2), clone(2), exit(2), signals, sched_*(2), clocks, nanosleep(2), prctl(2), arch_prctl(2),
// getpid(2), gettid(2).
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/stat.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <utime.h>

#include <cerrno>

#include "dom0-daemon/hypervisor/usermode/io/call_info.h"
#include "dom0-daemon/hypervisor/usermode/io/descriptors.h"
#include "dom0-daemon/hypervisor/usermode/io/paths.h"
#include "dom0-daemon/hypervisor/usermode/io/socket_calls.h"

namespace xenspan::hypervisor::usermode::io {
namespace {

constexpr std::uint32_t kStat = sizeof(struct stat), kStatfs = sizeof(struct statfs), kStatx = 256;
constexpr std::uint32_t kTimespec = sizeof(timespec), kTimeval = sizeof(timeval),
                        kRlimit = sizeof(rlimit);
constexpr std::uint32_t kItimerspec = sizeof(itimerspec), kEvent = sizeof(epoll_event),
                        kPollfd = sizeof(pollfd);
constexpr std::uint32_t kUtsname = 390;  // the kernel's struct new_utsname
constexpr int kFchmodat2 = 452;          // younger than Debian 12's headers

// A call that makes a descriptor; one whose shape is not generic; one that is refused.
constexpr CallInfo opens(CallInfo info) {
  info.new_fd = true;
  return info;
}
constexpr CallInfo shaped(int number, Shape shape) {
  CallInfo info{number};
  info.shape = shape;
  return info;
}
constexpr CallInfo refused(int number, int error) {
  CallInfo info = shaped(number, Shape::kRefused);
  info.refusal = error;
  return info;
}

// clang-format off
constexpr CallInfo kCalls[] = {
  // Reading and writing
  shaped(SYS_read, Shape::kTransfer),     shaped(SYS_write, Shape::kTransfer),
  shaped(SYS_pread64, Shape::kTransfer),  shaped(SYS_pwrite64, Shape::kTransfer),
  shaped(SYS_readv, Shape::kTransfer),    shaped(SYS_writev, Shape::kTransfer),
  shaped(SYS_preadv, Shape::kTransfer),   shaped(SYS_pwritev, Shape::kTransfer),
  shaped(SYS_preadv2, Shape::kTransfer),  shaped(SYS_pwritev2, Shape::kTransfer),
  {SYS_lseek,           {fd, val, val}},
  {SYS_sendfile,        {fd, fd, inout_of(8), val}},
  {SYS_copy_file_range, {fd, inout_of(8), fd, inout_of(8), val, val}},
  {SYS_splice,          {fd, inout_of(8), fd, inout_of(8), val, val}},
  {SYS_tee,             {fd, fd, val, val}},
  {SYS_getrandom,       {out(1), val, val}},

  // Descriptors
  opens({SYS_open,      {path, val, val}, false, run_open}),
  opens({SYS_openat,    {dirfd, path, val, val}, false, run_open}),
  opens({SYS_openat2,   {dirfd, path, in(3, 4096, E2BIG), val}, false, run_open}),
  opens({SYS_creat,     {path, val}, false, run_open}),
  {SYS_close,           {fd}},
  {SYS_close_range,     {val, val, val}, false, run_close_range},
  opens({SYS_dup,       {fd}}),
  {SYS_dup2,            {fd, val}, false, run_dup2},
  {SYS_dup3,            {fd, val, val}, false, run_dup2},
  {SYS_pipe,            {out_of(8)}, false, run_pair},
  {SYS_pipe2,           {out_of(8), val}, false, run_pair},
  opens({SYS_memfd_create, {text, val}}),
  {SYS_flock,           {fd, val}},

  // What a file is
  {SYS_stat,            {path, out_of(kStat)}},
  {SYS_lstat,           {path, out_of(kStat)}},
  {SYS_fstat,           {fd, out_of(kStat)}},
  {SYS_newfstatat,      {dirfd, path, out_of(kStat), val}},
  {SYS_statx,           {dirfd, path, val, val, out_of(kStatx)}},
  {SYS_statfs,          {path, out_of(kStatfs)}},
  {SYS_fstatfs,         {fd, out_of(kStatfs)}},
  {SYS_access,          {path, val}},
  {SYS_faccessat,       {dirfd, path, val}},
  {SYS_faccessat2,      {dirfd, path, val, val}},
  {SYS_readlink,        {path, out_int(2), val}, false, run_readlink},
  {SYS_readlinkat,      {dirfd, path, out_int(3), val}, false, run_readlink},
  {SYS_getdents,        {fd, out(2), val}},
  {SYS_getdents64,      {fd, out(2), val}},

  // Changing files and folders
  {SYS_mkdir,           {text, val}},
  {SYS_mkdirat,         {dirfd, text, val}},
  {SYS_rmdir,           {text}},
  {SYS_unlink,          {text}},
  {SYS_unlinkat,        {dirfd, text, val}},
  {SYS_rename,          {text, text}},
  {SYS_renameat,        {dirfd, text, dirfd, text}},
  {SYS_renameat2,       {dirfd, text, dirfd, text, val}},
  {SYS_link,            {text, text}},
  {SYS_linkat,          {dirfd, text, dirfd, text, val}},
  {SYS_symlink,         {text, text}},
  {SYS_symlinkat,       {text, dirfd, text}},
  {SYS_mknod,           {text, val, val}},
  {SYS_mknodat,         {dirfd, text, val, val}},
  {SYS_chmod,           {text, val}},
  {SYS_fchmod,          {fd, val}},
  {SYS_fchmodat,        {dirfd, text, val}},
  {kFchmodat2,          {dirfd, text, val, val}},
  {SYS_chown,           {text, val, val}},
  {SYS_fchown,          {fd, val, val}},
  {SYS_lchown,          {text, val, val}},
  {SYS_fchownat,        {dirfd, text, val, val, val}},
  {SYS_utime,           {text, in_of(sizeof(utimbuf))}},
  {SYS_utimes,          {text, in_of(2 * kTimeval)}},
  {SYS_futimesat,       {dirfd, text, in_of(2 * kTimeval)}},
  {SYS_utimensat,       {dirfd, text, in_of(2 * kTimespec), val}},
  {SYS_truncate,        {path, val}},
  {SYS_ftruncate,       {fd, val}},
  {SYS_fallocate,       {fd, val, val, val}},
  {SYS_umask,           {val}},
  {SYS_getcwd,          {out(1), val}},
  {SYS_chdir,           {path}},
  {SYS_fchdir,          {fd}},
  {SYS_setxattr,        {text, text, in(3), val, val}},
  {SYS_lsetxattr,       {text, text, in(3), val, val}},
  {SYS_fsetxattr,       {fd, text, in(3), val, val}},
  {SYS_getxattr,        {path, text, out(3), val}},
  {SYS_lgetxattr,       {path, text, out(3), val}},
  {SYS_fgetxattr,       {fd, text, out(3), val}},
  {SYS_listxattr,       {path, out(2), val}},
  {SYS_llistxattr,      {path, out(2), val}},
  {SYS_flistxattr,      {fd, out(2), val}},
  {SYS_removexattr,     {text, text}},
  {SYS_lremovexattr,    {text, text}},
  {SYS_fremovexattr,    {fd, text}},

  // Storing for good, reading ahead
  {SYS_fsync,           {fd}},
  {SYS_fdatasync,       {fd}},
  {SYS_sync,            {}},
  {SYS_syncfs,          {fd}},
  {SYS_sync_file_range, {fd, val, val, val}},
  {SYS_fadvise64,       {fd, val, val, val}},
  {SYS_readahead,       {fd, val, val}},

  // Sockets
  opens({SYS_socket,    {val, val, val}}),
  {SYS_socketpair,      {val, val, val, out_of(8)}, false, run_pair},
  {SYS_bind,            {fd, in_int(2, kMaxName, EINVAL), val}},
  {SYS_connect,         {fd, in_int(2, kMaxName, EINVAL), val}},
  {SYS_listen,          {fd, val}},
  opens({SYS_accept,    {fd, out_var(2, kMaxName), length_ptr}}),
  opens({SYS_accept4,   {fd, out_var(2, kMaxName), length_ptr, val}}),
  {SYS_getsockname,     {fd, out_var(2, kMaxName), length_ptr}},
  {SYS_getpeername,     {fd, out_var(2, kMaxName), length_ptr}},
  {SYS_setsockopt,      {fd, val, val, in_int(4, kMaxOption), val}, false, run_setsockopt},
  {SYS_getsockopt,      {fd, val, val, out_var(4, kMaxOption), length_ptr}, false, run_getsockopt},
  {SYS_shutdown,        {fd, val}},
  shaped(SYS_sendto, Shape::kMessage),    shaped(SYS_recvfrom, Shape::kMessage),
  shaped(SYS_sendmsg, Shape::kMessage),   shaped(SYS_recvmsg, Shape::kMessage),
  shaped(SYS_sendmmsg, Shape::kMessage),  shaped(SYS_recvmmsg, Shape::kMessage),

  // Waiting for descriptors. Signal masks stay with the caller.
  {SYS_poll,            {array(1, kPollfd, EINVAL), val, val}, false, run_poll},
  {SYS_ppoll,           {array(1, kPollfd, EINVAL), val, timeout_of(kTimespec), null, val}, false, run_poll},
  {SYS_select,          {val, fd_set, fd_set, fd_set, timeout_of(kTimeval)}, false, run_select},
  {SYS_pselect6,        {val, fd_set, fd_set, fd_set, timeout_of(kTimespec), null}, false, run_select},
  opens({SYS_epoll_create,  {val}}),
  opens({SYS_epoll_create1, {val}}),
  {SYS_epoll_ctl,       {fd, val, fd, in_of(kEvent)}},
  {SYS_epoll_wait,      {fd, out_int(2, kEvent), val, val}},
  {SYS_epoll_pwait,     {fd, out_int(2, kEvent), val, val, null, val}},
  {SYS_epoll_pwait2,    {fd, out_int(2, kEvent), val, in_of(kTimespec), null, val}},
  opens({SYS_eventfd,   {val}}),
  opens({SYS_eventfd2,  {val, val}}),
  opens({SYS_timerfd_create, {val, val}}),
  {SYS_timerfd_settime, {fd, val, in_of(kItimerspec), out_of(kItimerspec)}},
  {SYS_timerfd_gettime, {fd, out_of(kItimerspec)}},
  opens({SYS_inotify_init,  {}}),
  opens({SYS_inotify_init1, {val}}),
  {SYS_inotify_add_watch, {fd, path, val}},
  {SYS_inotify_rm_watch,  {fd, val}},
  refused(SYS_signalfd, ENOSYS),  // signals are the runtime's, no descriptor of the home sees them
  refused(SYS_signalfd4, ENOSYS),

  // The machine and the process
  {SYS_uname,           {out_of(kUtsname)}},
  {SYS_sysinfo,         {out_of(sizeof(struct sysinfo))}},
  {SYS_getrlimit,       {val, out_of(kRlimit)}, false, run_getrlimit},
  {SYS_setrlimit,       {val, in_of(kRlimit)}, false, run_setrlimit},
  {SYS_prlimit64,       {val, val, in_of(kRlimit), out_of(kRlimit)}, false, run_prlimit},
  {SYS_getrusage,       {val, out_of(sizeof(rusage))}},
  {SYS_times,           {out_of(sizeof(tms))}},
  {SYS_getpriority,     {val, val}},
  {SYS_setpriority,     {val, val, val}},
  {SYS_ioprio_get,      {val, val}},
  {SYS_ioprio_set,      {val, val, val}},
  {SYS_personality,     {val}},

  // Who it is
  {SYS_getuid, {}}, {SYS_geteuid, {}}, {SYS_getgid, {}}, {SYS_getegid, {}},
  {SYS_getresuid,       {out_of(4), out_of(4), out_of(4)}},
  {SYS_getresgid,       {out_of(4), out_of(4), out_of(4)}},
  {SYS_getgroups,       {val, out_int(0, 4)}},
  {SYS_setuid,          {val}},
  {SYS_setgid,          {val}},
  {SYS_setreuid,        {val, val}},
  {SYS_setregid,        {val, val}},
  {SYS_setresuid,       {val, val, val}},
  {SYS_setresgid,       {val, val, val}},
  {SYS_setfsuid,        {val}},
  {SYS_setfsgid,        {val}},
  {SYS_setgroups,       {val, {.kind = Kind::kBuffer, .length = Length::kCounted, .other = 0, .in = true,
                               .int_count = true, .over = EINVAL, .unit = 4}}},
  {SYS_capget,          {inout_of(sizeof(__user_cap_header_struct)), inout_of(2 * sizeof(__user_cap_data_struct))}},
  {SYS_getppid, {}}, {SYS_getpgrp, {}},
  {SYS_getpgid,         {val}},
  {SYS_setpgid,         {val, val}},
  {SYS_getsid,          {val}},
  {SYS_setsid,          {}},
};

// EPOLL_CTL_DEL does not look at its event.
constexpr CallInfo kEpollDelete{SYS_epoll_ctl, {fd, val, fd, null}};
// clang-format on

constexpr std::size_t kNumbers = 512;  // above every x86-64 call number there is

constexpr auto make_index() {
  std::array<std::int16_t, kNumbers> index{};
  for (auto& entry : index) entry = -1;
  for (std::size_t i = 0; i < std::size(kCalls); ++i)
    index[static_cast<std::size_t>(kCalls[i].number)] = static_cast<std::int16_t>(i);
  return index;
}
constexpr auto kIndex = make_index();

}  // namespace

const CallInfo* describe(std::int64_t number, const std::array<std::uint64_t, 6>& args) {
  if (number < 0 || number >= static_cast<std::int64_t>(kNumbers)) return nullptr;
  if (number == SYS_fcntl) return &describe_fcntl(args[1]);
  if (number == SYS_ioctl) return &describe_ioctl(args[1]);
  if (number == SYS_epoll_ctl && static_cast<int>(args[1]) == EPOLL_CTL_DEL) return &kEpollDelete;
  const std::int16_t at = kIndex[static_cast<std::size_t>(number)];
  return at < 0 ? nullptr : &kCalls[at];
}

}  // namespace xenspan::hypervisor::usermode::io
