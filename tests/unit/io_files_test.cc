// Files and folders by name, their attributes, and calls about the process: compared with the
// direct system call.
#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>
#include <sys/times.h>
#include <sys/utsname.h>
#include <sys/xattr.h>
#include <utime.h>

#include <set>

#include "base/unique_fd.h"
#include "tests/unit/io_guest.h"

namespace xenspan::hypervisor::usermode {
namespace {

class IoFilesTest : public IoTest {
 protected:
  void make(const std::string& name, const std::string& bytes = "contents") {
    UniqueFd file(::open(path(name).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0640));
    ASSERT_EQ(static_cast<ssize_t>(bytes.size()), ::write(file.get(), bytes.data(), bytes.size()));
  }
  bool exists(const std::string& name) { return ::access(path(name).c_str(), F_OK) == 0; }
};

TEST_F(IoFilesTest, OpensAndCloses) {
  const std::int64_t made = call(SYS_open, text(path("new")), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  ASSERT_GE(made, 0);
  EXPECT_EQ(FD_CLOEXEC, ::fcntl(static_cast<int>(made), F_GETFD));
  EXPECT_EQ(0, call(SYS_close, made));
  EXPECT_EQ(-EBADF, call(SYS_close, made));
  EXPECT_EQ(-EEXIST, call(SYS_open, text(path("new")), O_CREAT | O_EXCL, 0600));
  EXPECT_EQ(-ENOENT, call(SYS_open, text(path("none")), O_RDONLY));
  EXPECT_EQ(-EFAULT, call(SYS_open, kBadAddress, O_RDONLY));
  EXPECT_EQ(-EFAULT, call(SYS_open, 0, O_RDONLY));
  EXPECT_EQ(-ENAMETOOLONG, call(SYS_open, text(std::string(5000, 'a')), O_RDONLY));
  EXPECT_EQ(-ENAMETOOLONG, call(SYS_open, text(std::string(300, 'a')), O_RDONLY));
  EXPECT_EQ(-ENOENT, call(SYS_open, text(""), O_RDONLY));
  UniqueFd folder(::open(directory.c_str(), O_PATH));
  UniqueFd relative(static_cast<int>(call(SYS_openat, folder.get(), text("new"), O_RDONLY)));
  EXPECT_TRUE(relative);
  UniqueFd created(static_cast<int>(call(SYS_creat, text(path("created")), 0600)));
  EXPECT_TRUE(created);
  const open_how how{O_RDONLY, 0, RESOLVE_NO_SYMLINKS};
  UniqueFd second(
      static_cast<int>(call(SYS_openat2, folder.get(), text("new"), put(how), sizeof how)));
  EXPECT_TRUE(second);
  ASSERT_EQ(0, ::symlink("new", path("link").c_str()));
  EXPECT_EQ(-ELOOP, call(SYS_openat2, folder.get(), text("link"), put(how), sizeof how));
  EXPECT_EQ(-EINVAL, call(SYS_openat2, folder.get(), text("new"), put(how), 8));
}

TEST_F(IoFilesTest, StatFamilyAgreesWithTheKernel) {
  make("file");
  ASSERT_EQ(0, ::symlink("file", path("link").c_str()));
  UniqueFd file(::open(path("file").c_str(), O_RDONLY)),
      folder(::open(directory.c_str(), O_RDONLY));
  struct stat want, want_link;
  ASSERT_EQ(0, ::stat(path("link").c_str(), &want));
  ASSERT_EQ(0, ::lstat(path("link").c_str(), &want_link));
  const std::uint64_t out = take(256);
  const auto expect = [&](std::int64_t result, const struct stat& wanted) {
    EXPECT_EQ(0, result);
    auto got = get<struct stat>(out);
    got.st_atim = wanted.st_atim;  // following the link is an access
    EXPECT_EQ(0, std::memcmp(&got, &wanted, sizeof wanted));
    std::memset(memory.at(out), 0xee, sizeof wanted);
  };
  expect(call(SYS_stat, text(path("link")), out), want);
  expect(call(SYS_lstat, text(path("link")), out), want_link);
  expect(call(SYS_fstat, file.get(), out), want);
  expect(call(SYS_newfstatat, folder.get(), text("file"), out, 0), want);
  expect(call(SYS_newfstatat, folder.get(), text("link"), out, AT_SYMLINK_NOFOLLOW), want_link);
  expect(call(SYS_newfstatat, file.get(), text(""), out, AT_EMPTY_PATH), want);
  struct statx wanted;
  ASSERT_EQ(0, ::statx(folder.get(), "file", 0, STATX_BASIC_STATS, &wanted));
  EXPECT_EQ(0, call(SYS_statx, folder.get(), text("file"), 0, STATX_BASIC_STATS, out));
  EXPECT_EQ(wanted.stx_ino, get<struct statx>(out).stx_ino);
  EXPECT_EQ(wanted.stx_size, get<struct statx>(out).stx_size);
  EXPECT_EQ(-EFAULT, call(SYS_stat, text(path("file")), kBadAddress));
  EXPECT_EQ(-EFAULT, call(SYS_stat, text(path("file")), 0));
  EXPECT_EQ(-ENOENT, call(SYS_stat, text(path("none")), out));
  EXPECT_EQ(-ENOTDIR, call(SYS_stat, text(path("file/x")), out));
  struct statfs system;
  ASSERT_EQ(0, ::statfs(directory.c_str(), &system));
  EXPECT_EQ(0, call(SYS_statfs, text(directory), out));
  EXPECT_EQ(system.f_type, get<struct statfs>(out).f_type);
  EXPECT_EQ(0, call(SYS_fstatfs, file.get(), out));
  EXPECT_EQ(system.f_bsize, get<struct statfs>(out).f_bsize);
}

TEST_F(IoFilesTest, AccessAndLinks) {
  make("file");
  UniqueFd folder(::open(directory.c_str(), O_RDONLY));
  EXPECT_EQ(0, call(SYS_access, text(path("file")), R_OK));
  EXPECT_EQ(-ENOENT, call(SYS_access, text(path("no")), F_OK));
  EXPECT_EQ(0, call(SYS_faccessat, folder.get(), text("file"), R_OK));
  EXPECT_EQ(0, call(SYS_faccessat2, folder.get(), text("file"), R_OK, AT_EACCESS));
  EXPECT_EQ(0, call(SYS_symlink, text("target"), text(path("s1"))));
  EXPECT_EQ(0, call(SYS_symlinkat, text("target"), folder.get(), text("s2")));
  const std::uint64_t out = take(100);
  fill(out, 100, 1);
  const std::string before = get_text(out, 100);
  EXPECT_EQ(6, call(SYS_readlink, text(path("s1")), out, 100));
  EXPECT_EQ("target" + before.substr(6), get_text(out, 100));
  EXPECT_EQ(3, call(SYS_readlinkat, folder.get(), text("s2"), out, 3));
  EXPECT_EQ(-EINVAL, call(SYS_readlink, text(path("s1")), out, 0));
  EXPECT_EQ(-EINVAL, call(SYS_readlink, text(path("s1")), out, -1));
  EXPECT_EQ(-EINVAL, call(SYS_readlink, text(path("file")), out, 100));
  EXPECT_EQ(0, call(SYS_link, text(path("file")), text(path("hard"))));
  EXPECT_EQ(0, call(SYS_linkat, folder.get(), text("file"), folder.get(), text("hard2"), 0));
  struct stat status;
  ASSERT_EQ(0, ::stat(path("file").c_str(), &status));
  EXPECT_EQ(3U, status.st_nlink);
}

TEST_F(IoFilesTest, FoldersAndNames) {
  UniqueFd folder(::open(directory.c_str(), O_RDONLY));
  EXPECT_EQ(0, call(SYS_mkdir, text(path("d1")), 0700));
  EXPECT_EQ(0, call(SYS_mkdirat, folder.get(), text("d2"), 0700));
  make("d1/file");
  EXPECT_EQ(-ENOTEMPTY, call(SYS_rmdir, text(path("d1"))));
  EXPECT_EQ(0, call(SYS_rename, text(path("d1/file")), text(path("d2/file"))));
  EXPECT_EQ(0, call(SYS_renameat, folder.get(), text("d2/file"), folder.get(), text("d1/f")));
  make("d1/other");
  EXPECT_EQ(-EEXIST,
            call(SYS_renameat2, folder.get(), text("d1/f"), folder.get(), text("d1/other"), 1));
  EXPECT_EQ(0, call(SYS_unlink, text(path("d1/f"))));
  EXPECT_EQ(0, call(SYS_unlinkat, folder.get(), text("d1/other"), 0));
  EXPECT_EQ(0, call(SYS_unlinkat, folder.get(), text("d2"), AT_REMOVEDIR));
  EXPECT_EQ(0, call(SYS_rmdir, text(path("d1"))));
  EXPECT_EQ(0, call(SYS_mknod, text(path("fifo")), S_IFIFO | 0600, 0));
  EXPECT_EQ(0, call(SYS_mknodat, folder.get(), text("fifo2"), S_IFIFO | 0600, 0));
  struct stat status;
  ASSERT_EQ(0, ::stat(path("fifo2").c_str(), &status));
  EXPECT_TRUE(S_ISFIFO(status.st_mode));
}

TEST_F(IoFilesTest, ListsAFolder) {
  std::set<std::string> want{".", ".."}, got;
  for (int i = 0; i < 300; ++i) {
    const std::string name = "entry-" + std::to_string(i);
    make(name, "");
    want.insert(name);
  }
  UniqueFd folder(static_cast<int>(call(SYS_open, text(directory), O_RDONLY | O_DIRECTORY)));
  const std::uint64_t out = take(2048);
  for (std::int64_t n; (n = call(SYS_getdents64, folder.get(), out, 2048)) != 0;) {
    ASSERT_GT(n, 0);
    for (std::int64_t at = 0; at < n;) {
      const auto* entry = reinterpret_cast<const dirent64*>(memory.at(out) + at);
      got.insert(entry->d_name);
      at += entry->d_reclen;
    }
  }
  EXPECT_EQ(want, got);
  ASSERT_EQ(0, ::lseek(folder.get(), 0, SEEK_SET));
  EXPECT_GT(call(SYS_getdents, folder.get(), out, 2048), 0);
  EXPECT_EQ(-EINVAL, call(SYS_getdents64, folder.get(), out, 8));
}

TEST_F(IoFilesTest, WorkingDirectoryAndUmask) {
  const std::string before = std::filesystem::current_path();
  const std::uint64_t out = take(4096);
  EXPECT_EQ(0, call(SYS_chdir, text(directory)));
  const auto bytes = static_cast<std::int64_t>(std::filesystem::current_path().string().size() + 1);
  EXPECT_EQ(bytes, call(SYS_getcwd, out, 4096));
  EXPECT_EQ(std::filesystem::current_path().string(),
            std::string(get_text(out, static_cast<std::size_t>(bytes)).c_str()));
  EXPECT_EQ(-ERANGE, call(SYS_getcwd, out, 2));
  make("relative");
  EXPECT_EQ(0, call(SYS_access, text("relative"), F_OK));
  EXPECT_EQ(0, call(SYS_access, text("../" + std::filesystem::path(directory).filename().string()),
                    F_OK));
  UniqueFd back(::open(before.c_str(), O_RDONLY));
  EXPECT_EQ(0, call(SYS_fchdir, back.get()));
  EXPECT_EQ(before, std::filesystem::current_path());
  const std::int64_t mask = call(SYS_umask, 027);
  EXPECT_EQ(027, call(SYS_umask, mask));
}

TEST_F(IoFilesTest, Attributes) {
  make("file");
  UniqueFd file(::open(path("file").c_str(), O_RDWR)), folder(::open(directory.c_str(), O_RDONLY));
  struct stat status;
  const auto now = [&] {
    EXPECT_EQ(0, ::fstat(file.get(), &status));
    return status;
  };
  EXPECT_EQ(0, call(SYS_chmod, text(path("file")), 0604));
  EXPECT_EQ(0604U, now().st_mode & 07777);
  EXPECT_EQ(0, call(SYS_fchmod, file.get(), 0640));
  EXPECT_EQ(0640U, now().st_mode & 07777);
  EXPECT_EQ(0, call(SYS_fchmodat, folder.get(), text("file"), 0600));
  EXPECT_EQ(0600U, now().st_mode & 07777);
  for (const std::int64_t number : {SYS_chown, SYS_lchown})
    EXPECT_EQ(0, call(number, text(path("file")), -1, -1));
  EXPECT_EQ(0, call(SYS_fchown, file.get(), ::getuid(), ::getgid()));
  EXPECT_EQ(0, call(SYS_fchownat, folder.get(), text("file"), -1, -1, 0));
  EXPECT_EQ(0, call(SYS_utime, text(path("file")), put(utimbuf{1000, 2000})));
  EXPECT_EQ(2000, now().st_mtime);
  const timeval seconds[2] = {{3000, 0}, {4000, 0}};
  EXPECT_EQ(0, call(SYS_utimes, text(path("file")), put(seconds)));
  EXPECT_EQ(4000, now().st_mtime);
  const timespec times[2] = {{5000, 1}, {6000, 2}};
  EXPECT_EQ(0, call(SYS_utimensat, folder.get(), text("file"), put(times), 0));
  EXPECT_EQ(6000, now().st_mtime);
  const timespec later[2] = {{7000, 1}, {8000, 2}};
  EXPECT_EQ(0, call(SYS_utimensat, file.get(), 0, put(later), 0));  // futimens(3)
  EXPECT_EQ(8000, now().st_mtime);
  EXPECT_EQ(0, call(SYS_futimesat, folder.get(), text("file"), put(seconds)));
  EXPECT_EQ(0, call(SYS_truncate, text(path("file")), 5));
  EXPECT_EQ(5, now().st_size);
  EXPECT_EQ(0, call(SYS_ftruncate, file.get(), 100000));
  EXPECT_EQ(100000, now().st_size);
  EXPECT_EQ(direct(::fallocate(file.get(), 0, 0, 200000)),
            call(SYS_fallocate, file.get(), 0, 0, 200000));
  EXPECT_EQ(0, call(SYS_fsync, file.get()));
  EXPECT_EQ(0, call(SYS_fdatasync, file.get()));
  EXPECT_EQ(0, call(SYS_syncfs, file.get()));
  EXPECT_EQ(direct(::sync_file_range(file.get(), 0, 4096, 0)),
            call(SYS_sync_file_range, file.get(), 0, 4096, 0));
  EXPECT_EQ(0, call(SYS_fadvise64, file.get(), 0, 4096, POSIX_FADV_WILLNEED));
  EXPECT_EQ(direct(::readahead(file.get(), 0, 4096)), call(SYS_readahead, file.get(), 0, 4096));
}

TEST_F(IoFilesTest, ExtendedAttributes) {
  make("file");
  UniqueFd file(::open(path("file").c_str(), O_RDWR));
  const std::string name = "user.xenspan", value = "some value";
  const std::int64_t could = direct(::setxattr(path("file").c_str(), "user.probe", "x", 1, 0));
  const std::uint64_t out = take(256);
  if (could != 0) {  // a file system without them: the error is the same
    EXPECT_EQ(could, call(SYS_setxattr, text(path("file")), text("user.probe"), text("x"), 1, 0));
    return;
  }
  EXPECT_EQ(0, call(SYS_setxattr, text(path("file")), text(name), text(value), value.size(), 0));
  EXPECT_EQ(-EEXIST,
            call(SYS_fsetxattr, file.get(), text(name), text(value), value.size(), XATTR_CREATE));
  const auto size = static_cast<std::int64_t>(value.size());
  EXPECT_EQ(size, call(SYS_getxattr, text(path("file")), text(name), out, 256));
  EXPECT_EQ(value, get_text(out, value.size()));
  EXPECT_EQ(size, call(SYS_fgetxattr, file.get(), text(name), 0, 0));
  EXPECT_EQ(-ERANGE, call(SYS_lgetxattr, text(path("file")), text(name), out, 3));
  char list[256];
  EXPECT_EQ(::listxattr(path("file").c_str(), list, sizeof list),
            call(SYS_listxattr, text(path("file")), out, 256));
  EXPECT_EQ(::flistxattr(file.get(), list, sizeof list),
            call(SYS_flistxattr, file.get(), out, 256));
  EXPECT_EQ(0, call(SYS_removexattr, text(path("file")), text(name)));
  EXPECT_EQ(-ENODATA, call(SYS_fremovexattr, file.get(), text(name)));
}

TEST_F(IoFilesTest, TheProcess) {
  EXPECT_EQ(::getuid(), call(SYS_getuid));
  EXPECT_EQ(::getegid(), call(SYS_getegid));
  EXPECT_EQ(::getppid(), call(SYS_getppid));
  EXPECT_EQ(::getpgrp(), call(SYS_getpgrp));
  EXPECT_EQ(::getsid(0), call(SYS_getsid, 0));
  EXPECT_EQ(::getpgid(0), call(SYS_getpgid, 0));
  const std::uint64_t a = take(4), b = take(4), c = take(4);
  EXPECT_EQ(0, call(SYS_getresuid, a, b, c));
  EXPECT_EQ(::geteuid(), get<uid_t>(b));
  EXPECT_EQ(-EFAULT, call(SYS_getresgid, a, kBadAddress, c));
  EXPECT_EQ(0, call(SYS_setresuid, -1, -1, -1));
  EXPECT_EQ(0, call(SYS_setresgid, -1, -1, -1));
  EXPECT_EQ(::getgroups(0, nullptr), call(SYS_getgroups, 0, 0));
  const std::uint64_t out = take(512);
  gid_t groups[64];
  const int count = ::getgroups(64, groups);
  EXPECT_EQ(count, call(SYS_getgroups, 64, out));
  EXPECT_EQ(0,
            std::memcmp(groups, memory.at(out), static_cast<std::size_t>(count) * sizeof(gid_t)));
  EXPECT_EQ(-EINVAL, call(SYS_getgroups, -1, out));
  utsname name;
  ASSERT_EQ(0, ::uname(&name));
  EXPECT_EQ(0, call(SYS_uname, out));
  EXPECT_EQ(0, std::memcmp(&name, memory.at(out), sizeof name));
  EXPECT_EQ(0, call(SYS_sysinfo, out));
  EXPECT_GT(get<struct sysinfo>(out).totalram, 0U);
  EXPECT_EQ(0, call(SYS_getrusage, RUSAGE_SELF, out));
  EXPECT_GT(get<rusage>(out).ru_maxrss, 0);
  EXPECT_GT(call(SYS_times, out), 0);
  EXPECT_GT(call(SYS_times, 0), 0);
  EXPECT_EQ(20 - ::getpriority(PRIO_PROCESS, 0), call(SYS_getpriority, PRIO_PROCESS, 0));
  EXPECT_GE(call(SYS_ioprio_get, 1, 0), 0);
  EXPECT_EQ(call(SYS_personality, 0xffffffff), call(SYS_personality, 0xffffffff));
  const __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  EXPECT_EQ(0, call(SYS_capget, put(header), out));
  const __user_cap_header_struct old{0, 0};
  const std::uint64_t probe = put(old);
  EXPECT_EQ(0, call(SYS_capget, probe, 0));
  EXPECT_EQ(static_cast<std::uint32_t>(_LINUX_CAPABILITY_VERSION_3),
            get<__user_cap_header_struct>(probe).version);
}

TEST_F(IoFilesTest, CallsOfTheRuntimeAreNotHandled) {
  for (const std::int64_t number : {SYS_mmap,
                                    SYS_munmap,
                                    SYS_mprotect,
                                    SYS_mremap,
                                    SYS_brk,
                                    SYS_madvise,
                                    SYS_msync,
                                    SYS_futex,
                                    SYS_clone,
                                    SYS_clone3,
                                    SYS_fork,
                                    SYS_vfork,
                                    SYS_execve,
                                    SYS_exit,
                                    SYS_exit_group,
                                    SYS_rt_sigaction,
                                    SYS_rt_sigprocmask,
                                    SYS_kill,
                                    SYS_tgkill,
                                    SYS_sched_yield,
                                    SYS_sched_getaffinity,
                                    SYS_clock_gettime,
                                    SYS_nanosleep,
                                    SYS_clock_nanosleep,
                                    SYS_prctl,
                                    SYS_arch_prctl,
                                    SYS_membarrier,
                                    SYS_rseq,
                                    SYS_mincore,
                                    SYS_getpid,
                                    SYS_gettid,
                                    SYS_ptrace,
                                    SYS_process_vm_readv,
                                    SYS_io_uring_setup,
                                    SYS_mount,
                                    SYS_init_module}) {
    EXPECT_FALSE(handles(number)) << number;
    EXPECT_EQ(-ENOSYS, call(number)) << number;
  }
  for (const std::int64_t number :
       {std::int64_t{-1}, std::int64_t{511}, std::int64_t{512}, std::int64_t{1} << 40})
    EXPECT_FALSE(handles(number));
  for (const std::int64_t number :
       {SYS_read, SYS_openat, SYS_ioctl, SYS_fcntl, SYS_recvmmsg, SYS_epoll_ctl})
    EXPECT_TRUE(handles(number)) << number;
  EXPECT_EQ(-ENOSYS, call(SYS_signalfd4, -1, text("12345678"), 8, 0));
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
