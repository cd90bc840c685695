// Files of the domain's own in /proc and /sys, by every way a program may name them.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <fstream>

#include "base/unique_fd.h"
#include "dom0-daemon/hypervisor/usermode/io/paths.h"
#include "dom0-daemon/hypervisor/usermode/proc_files.h"
#include "tests/unit/io_guest.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr int kOtherThread = 999'999'999;  // above any pid Linux gives

class IoPathsTest : public IoTest {
 protected:
  IoPathsTest() : files_(sources()) { home.files = &files_; }

  ProcFiles::Sources sources() {
    ProcFiles::Sources sources;
    sources.vcpus = 3;
    sources.memory = 1 << 30;
    sources.program = "/bin/sh";
    sources.arguments = {"guest", "argument"};
    sources.pid = ::getpid();
    sources.directory = directory;
    sources.maps = [] { return std::string("10000-20000 r-xp 00000000 00:00 0 guest\n"); };
    sources.threads = [] { return std::vector<int>{::getpid(), kOtherThread}; };
    return sources;
  }
  std::string read_all(std::int64_t descriptor) {
    if (descriptor < 0) return "errno " + std::to_string(-descriptor);
    const std::uint64_t buffer = take(1 << 16);
    const std::int64_t bytes = call(SYS_read, descriptor, buffer, 1 << 16);
    ::close(static_cast<int>(descriptor));
    return bytes < 0 ? "errno " + std::to_string(-bytes)
                     : get_text(buffer, static_cast<std::size_t>(bytes));
  }
  std::string read_path(const std::string& name) {
    return read_all(call(SYS_open, text(name), O_RDONLY));
  }

  ProcFiles files_;
};

TEST(Normalised, RemovesWhatDoesNotMatter) {
  EXPECT_EQ("/", io::normalised("/"));
  EXPECT_EQ("/", io::normalised("//.."));
  EXPECT_EQ("/proc/cpuinfo", io::normalised("//proc/./self//../cpuinfo/"));
  EXPECT_EQ("/a/..b/c...", io::normalised("/a/..b/c..."));
  EXPECT_EQ("/b", io::normalised("/../a/../b/."));
}

TEST_F(IoPathsTest, ContentsByEveryName) {
  const std::string maps = "10000-20000 r-xp 00000000 00:00 0 guest\n";
  EXPECT_EQ(maps, read_path("/proc/self/maps"));
  EXPECT_EQ(maps, read_path("//proc/./self/../self/maps"));
  EXPECT_EQ(maps, read_path("/proc/" + std::to_string(::getpid()) + "/maps"));
  EXPECT_EQ(maps, read_path("/proc/thread-self/maps"));
  EXPECT_EQ(maps, read_path("/proc/self/task/" + std::to_string(kOtherThread) + "/maps"));
  UniqueFd proc(static_cast<int>(call(SYS_open, text("/proc"), O_RDONLY | O_DIRECTORY)));
  UniqueFd self(static_cast<int>(call(SYS_openat, proc.get(), text("self"), O_PATH | O_DIRECTORY)));
  EXPECT_EQ(maps, read_all(call(SYS_openat, proc.get(), text("self/maps"), O_RDONLY)));
  EXPECT_EQ(maps, read_all(call(SYS_openat, self.get(), text("maps"), O_RDONLY)));
  const std::string before = std::filesystem::current_path();
  ASSERT_EQ(0, call(SYS_chdir, text("/")));
  EXPECT_EQ(maps, read_path("proc/self/maps"));
  EXPECT_EQ(maps, read_path("usr/../proc/self/maps"));
  ASSERT_EQ(0, ::chdir(directory.c_str()));
  std::string up;
  for (std::size_t i = 0; i < 20; ++i) up += "../";
  EXPECT_EQ(maps, read_path(up + "proc/self/maps"));
  ASSERT_EQ(0, ::chdir(before.c_str()));
  EXPECT_EQ(std::string("guest\0argument\0", 15), read_path("/proc/self/cmdline"));
}

TEST_F(IoPathsTest, ContentsAreASealedRegularFile) {
  const int lowest = ::dup(STDERR_FILENO);
  ::close(lowest);
  const std::int64_t file = call(SYS_open, text("/proc/self/maps"), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(lowest, file);  // as any open: no number is skipped
  EXPECT_EQ(FD_CLOEXEC, ::fcntl(lowest, F_GETFD));
  EXPECT_EQ(O_RDONLY, ::fcntl(lowest, F_GETFL) & O_ACCMODE);
  const std::uint64_t buffer = take(256);
  EXPECT_EQ(0, call(SYS_fstat, file, buffer));
  EXPECT_TRUE(S_ISREG(get<struct stat>(buffer).st_mode));
  EXPECT_EQ(-EBADF, call(SYS_write, file, buffer, 1));
  EXPECT_EQ(5, call(SYS_pread64, file, buffer, 5, 0));
  EXPECT_EQ(-1, ::fcntl(home.descriptor_limit, F_GETFD));  // what made it is closed
  ::close(lowest);
  EXPECT_EQ(-EACCES, call(SYS_open, text("/proc/self/maps"), O_RDWR));
  EXPECT_EQ(-EACCES, call(SYS_open, text("/proc/self/maps"), O_RDONLY | O_TRUNC));
  EXPECT_EQ(-ENOTDIR, call(SYS_open, text("/proc/self/maps"), O_RDONLY | O_DIRECTORY));
  EXPECT_EQ(-EEXIST, call(SYS_open, text("/proc/self/maps"), O_CREAT | O_EXCL, 0600));
  EXPECT_EQ(-EINVAL, call(SYS_readlink, text("/proc/self/maps"), buffer, 100));
}

TEST_F(IoPathsTest, StatAndAccessSeeWhatTheKernelDoesNot) {
  const std::string name = "/proc/" + std::to_string(kOtherThread) + "/maps";
  const std::uint64_t buffer = take(256);
  struct stat real;
  ASSERT_EQ(-ENOENT, direct(::stat(name.c_str(), &real)));
  for (const std::int64_t number : {SYS_stat, SYS_lstat}) {
    EXPECT_EQ(0, call(number, text(name), buffer)) << number;
    EXPECT_TRUE(S_ISREG(get<struct stat>(buffer).st_mode));
    EXPECT_EQ(0444U, get<struct stat>(buffer).st_mode & 0777);
  }
  EXPECT_EQ(0, call(SYS_newfstatat, AT_FDCWD, text(name), buffer, AT_SYMLINK_NOFOLLOW));
  EXPECT_TRUE(S_ISREG(get<struct stat>(buffer).st_mode));
  EXPECT_EQ(0,
            call(SYS_statx, AT_FDCWD, text(name), AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, buffer));
  EXPECT_TRUE(S_ISREG(get<struct statx>(buffer).stx_mode));
  EXPECT_EQ(0, call(SYS_access, text(name), R_OK));
  EXPECT_EQ(0, call(SYS_faccessat2, AT_FDCWD, text(name), R_OK, AT_SYMLINK_NOFOLLOW));
}

TEST_F(IoPathsTest, RedirectedTree) {
  EXPECT_EQ("0-2\n", read_path("/sys/devices/system/cpu/online"));
  UniqueFd system(
      static_cast<int>(call(SYS_open, text("/sys/devices/system"), O_RDONLY | O_DIRECTORY)));
  EXPECT_EQ("0-2\n", read_all(call(SYS_openat, system.get(), text("cpu/online"), O_RDONLY)));
  UniqueFd cpus(static_cast<int>(
      call(SYS_openat, AT_FDCWD, text("/sys/devices/system/cpu"), O_RDONLY | O_DIRECTORY)));
  EXPECT_EQ("0-2\n", read_all(call(SYS_openat, cpus.get(), text("online"), O_RDONLY)));
  EXPECT_EQ(0, call(SYS_access, text("/sys/devices/system/cpu/cpu2"), F_OK));
  EXPECT_EQ(-ENOENT, call(SYS_access, text("/sys/devices/system/cpu/cpu3"), F_OK));
}

TEST_F(IoPathsTest, LinkToTheProgram) {
  const std::string program = std::filesystem::canonical("/bin/sh");
  const std::uint64_t buffer = take(4096);
  const std::int64_t bytes = call(SYS_readlink, text("/proc/self/exe"), buffer, 4096);
  ASSERT_GT(bytes, 0);
  EXPECT_EQ(program, get_text(buffer, static_cast<std::size_t>(bytes)));
  EXPECT_EQ(4, call(SYS_readlinkat, AT_FDCWD, text("/proc/self/exe"), buffer, 4));
  EXPECT_EQ(-EINVAL, call(SYS_readlink, text("/proc/self/exe"), buffer, 0));
  struct stat wanted;
  ASSERT_EQ(0, ::stat(program.c_str(), &wanted));
  EXPECT_EQ(0, call(SYS_stat, text("/proc/self/exe"), buffer));
  EXPECT_EQ(wanted.st_ino, get<struct stat>(buffer).st_ino);
  EXPECT_EQ(0, call(SYS_lstat, text("/proc/self/exe"), buffer));
  EXPECT_TRUE(S_ISLNK(get<struct stat>(buffer).st_mode));
  EXPECT_EQ(
      "\x7f"
      "ELF",
      read_path("/proc/self/exe").substr(0, 4));
  EXPECT_EQ(-ELOOP, call(SYS_open, text("/proc/self/exe"), O_RDONLY | O_NOFOLLOW));
}

TEST_F(IoPathsTest, HiddenDescriptorsBehindRedirects) {
  UniqueFd file(::open("/dev/null", O_RDONLY)), hidden(::fcntl(file.get(), F_DUPFD, 700));
  home.descriptor_limit = 700;
  const std::string folder = "/proc/" + std::to_string(kOtherThread) + "/fd/";
  EXPECT_EQ(0, call(SYS_access, text(folder + std::to_string(file.get())), F_OK));
  EXPECT_EQ(-ENOENT, call(SYS_access, text(folder + std::to_string(hidden.get())), F_OK));
}

TEST_F(IoPathsTest, OtherFilesAreTheHomes) {
  std::ifstream stream("/proc/version");
  std::string wanted((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  EXPECT_EQ(wanted, read_path("/proc/version"));
  EXPECT_EQ("errno " + std::to_string(ENOENT), read_path("/proc/none"));
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
