// Descriptors: duplicates, locks, the limit above which they are the slice's own, limits of the
// process, ioctl(2).
#include <asm/termbits.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <net/if.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/unique_fd.h"
#include "tests/unit/io_guest.h"

namespace xenspan::hypervisor::usermode {
namespace {

class IoDescriptorsTest : public IoTest {
 protected:
  // The limit such that the next descriptor would be hidden.
  void hide_the_rest() {
    UniqueFd next(::open("/dev/null", O_RDONLY));
    home.descriptor_limit = next.get();
  }
  bool is_open(int descriptor) { return ::fcntl(descriptor, F_GETFD) >= 0; }
};

TEST_F(IoDescriptorsTest, Duplicates) {
  UniqueFd file(static_cast<int>(call(SYS_memfd_create, text("name"), MFD_CLOEXEC)));
  ASSERT_TRUE(file);
  UniqueFd copy(static_cast<int>(call(SYS_dup, file.get())));
  EXPECT_TRUE(copy);
  EXPECT_EQ(300, call(SYS_dup2, file.get(), 300));
  EXPECT_EQ(301, call(SYS_dup3, file.get(), 301, O_CLOEXEC));
  EXPECT_EQ(FD_CLOEXEC, call(SYS_fcntl, 301, F_GETFD, 0));
  EXPECT_EQ(302, call(SYS_fcntl, file.get(), F_DUPFD, 302));
  EXPECT_EQ(303, call(SYS_fcntl, file.get(), F_DUPFD_CLOEXEC, 300));
  EXPECT_EQ(0, call(SYS_close_range, 300, 301, CLOSE_RANGE_CLOEXEC));
  EXPECT_EQ(FD_CLOEXEC, ::fcntl(300, F_GETFD));
  EXPECT_EQ(0, call(SYS_close_range, 300, 303, 0));
  for (int i = 300; i < 304; ++i) EXPECT_FALSE(is_open(i));
  EXPECT_EQ(-EINVAL, call(SYS_close_range, 5, 4, 0));
  EXPECT_EQ(-EINVAL, call(SYS_close_range, 300, 303, CLOSE_RANGE_UNSHARE));
  EXPECT_EQ(file.get(), call(SYS_dup2, file.get(), file.get()));
  EXPECT_EQ(-EINVAL, call(SYS_dup3, file.get(), file.get(), 0));
}

TEST_F(IoDescriptorsTest, HiddenOnesDoNotExist) {
  UniqueFd file(::memfd_create("x", 0)), hidden(::fcntl(file.get(), F_DUPFD, 700));
  home.descriptor_limit = 700;
  const std::uint64_t buffer = take(4096);
  const int h = hidden.get();
  EXPECT_EQ(-EBADF, call(SYS_read, h, buffer, 1));
  EXPECT_EQ(-EBADF, call(SYS_write, h, buffer, 1));
  EXPECT_EQ(-EBADF, call(SYS_close, h));
  EXPECT_EQ(-EBADF, call(SYS_fstat, h, buffer));
  EXPECT_EQ(-EBADF, call(SYS_dup, h));
  EXPECT_EQ(-EBADF, call(SYS_dup2, h, 5));
  EXPECT_EQ(-EBADF, call(SYS_dup2, file.get(), h));
  EXPECT_EQ(-EBADF, call(SYS_dup3, file.get(), h + 1, 0));
  EXPECT_EQ(-EINVAL, call(SYS_fcntl, file.get(), F_DUPFD, 700));
  EXPECT_EQ(-EBADF, call(SYS_fcntl, h, F_GETFD, 0));
  EXPECT_EQ(-EBADF, call(SYS_fcntl, h, 12345, 0));
  EXPECT_EQ(-EBADF, call(SYS_ioctl, h, FIONREAD, buffer));
  EXPECT_EQ(-EBADF, call(SYS_sendto, h, buffer, 1, 0, 0, 0));
  EXPECT_EQ(-EBADF, call(SYS_sendfile, h, file.get(), 0, 1));
  EXPECT_EQ(-EBADF, call(SYS_sendfile, file.get(), h, 0, 1));
  EXPECT_EQ(-EBADF, call(SYS_openat, h, text("x"), O_RDONLY));
  EXPECT_EQ(-EBADF, call(SYS_newfstatat, h, text(""), buffer, AT_EMPTY_PATH));
  EXPECT_EQ(0, call(SYS_newfstatat, h, text("/"), buffer, 0));  // the folder does not matter
  EXPECT_EQ(-EBADF, call(SYS_ioctl, file.get(), FICLONE, h));
  EXPECT_EQ(-EBADF, call(SYS_ioctl, file.get(), FICLONERANGE, put(file_clone_range{h, 0, 0, 0})));
  EXPECT_EQ(0, call(SYS_close_range, 650, 0xffffffff, 0));
  EXPECT_EQ(0, call(SYS_close_range, 700, 0xffffffff, 0));
  EXPECT_TRUE(is_open(h));
  for (const char* folder :
       {"/proc/self/fd/", "/dev/fd/", "/proc/thread-self/fd/", "/proc/self/../self/fdinfo/"})
    EXPECT_EQ(-ENOENT, call(SYS_open, text(folder + std::to_string(h)), O_RDONLY)) << folder;
  EXPECT_EQ(-ENOENT,
            call(SYS_access,
                 text("/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(h)), F_OK));
  EXPECT_EQ(0, call(SYS_access, text("/proc/self/fd/" + std::to_string(file.get())), F_OK));
  UniqueFd folder(::open("/proc/self/fd", O_RDONLY));
  EXPECT_EQ(-ENOENT, call(SYS_readlinkat, folder.get(), text(std::to_string(h)), buffer, 100));
}

TEST_F(IoDescriptorsTest, NoNewOnesAboveTheLimit) {
  UniqueFd source(::open("/dev/null", O_RDWR)), listener(::socket(AF_UNIX, SOCK_STREAM, 0));
  hide_the_rest();
  const int next = home.descriptor_limit;
  const std::uint64_t buffer = take(64);
  EXPECT_EQ(-EMFILE, call(SYS_open, text("/dev/null"), O_RDONLY));
  EXPECT_EQ(-EMFILE, call(SYS_openat, AT_FDCWD, text("/dev/null"), O_RDONLY));
  EXPECT_EQ(-EMFILE, call(SYS_creat, text(path("x")), 0600));
  EXPECT_EQ(-EMFILE, call(SYS_dup, source.get()));
  EXPECT_EQ(-EMFILE, call(SYS_fcntl, source.get(), F_DUPFD, 0));
  EXPECT_EQ(-EMFILE, call(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
  EXPECT_EQ(-EMFILE, call(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, buffer));
  EXPECT_EQ(-EMFILE, call(SYS_pipe, buffer));
  EXPECT_EQ(-EMFILE, call(SYS_pipe2, buffer, 0));
  EXPECT_EQ(-EMFILE, call(SYS_eventfd2, 0, 0));
  EXPECT_EQ(-EMFILE, call(SYS_epoll_create1, 0));
  EXPECT_EQ(-EMFILE, call(SYS_timerfd_create, 1, 0));
  EXPECT_EQ(-EMFILE, call(SYS_memfd_create, text("m"), 0));
  EXPECT_EQ(-EMFILE, call(SYS_inotify_init1, 0));
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(is_open(next + i));
  home.descriptor_limit = next + 1;  // one is left: a pair does not fit, and nothing stays open
  EXPECT_EQ(-EMFILE, call(SYS_pipe, buffer));
  EXPECT_FALSE(is_open(next));
  EXPECT_EQ(next, call(SYS_dup, source.get()));
  ::close(next);
}

TEST_F(IoDescriptorsTest, LocksAreTheProcesss) {
  UniqueFd file(::open(path("locked").c_str(), O_RDWR | O_CREAT, 0600));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 10;
  EXPECT_EQ(0, call(SYS_fcntl, file.get(), F_SETLK, put(lock)));
  const pid_t other = ::fork();
  if (other == 0) {
    struct flock probe = lock;
    ::fcntl(file.get(), F_GETLK, &probe);
    ::_exit(probe.l_type == F_WRLCK && probe.l_pid == ::getppid() ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(other, ::waitpid(other, &status, 0));
  EXPECT_EQ(0, status);
  const std::uint64_t probe = put(lock);
  EXPECT_EQ(0, call(SYS_fcntl, file.get(), F_GETLK, probe));
  EXPECT_EQ(F_UNLCK, get<struct flock>(probe).l_type);
  lock.l_type = F_UNLCK;
  EXPECT_EQ(0, call(SYS_fcntl, file.get(), F_SETLKW, put(lock)));
  lock.l_type = F_RDLCK;
  EXPECT_EQ(0, call(SYS_fcntl, file.get(), F_OFD_SETLK, put(lock)));
  EXPECT_EQ(-EFAULT, call(SYS_fcntl, file.get(), F_SETLK, kBadAddress));
  EXPECT_EQ(0, call(SYS_flock, file.get(), LOCK_EX | LOCK_NB));
  UniqueFd second(::open(path("locked").c_str(), O_RDWR));
  EXPECT_EQ(-EWOULDBLOCK, call(SYS_flock, second.get(), LOCK_EX | LOCK_NB));
}

TEST_F(IoDescriptorsTest, FcntlFlagsAndSeals) {
  UniqueFd file(::memfd_create("sealed", MFD_ALLOW_SEALING));
  EXPECT_EQ(0, call(SYS_fcntl, file.get(), F_SETFD, FD_CLOEXEC));
  EXPECT_EQ(FD_CLOEXEC, ::fcntl(file.get(), F_GETFD));
  EXPECT_EQ(0, call(SYS_fcntl, file.get(), F_SETFL, O_NONBLOCK));
  EXPECT_EQ(::fcntl(file.get(), F_GETFL), call(SYS_fcntl, file.get(), F_GETFL, 0));
  EXPECT_EQ(0, call(SYS_fcntl, file.get(), F_ADD_SEALS, F_SEAL_GROW));
  EXPECT_EQ(F_SEAL_GROW, call(SYS_fcntl, file.get(), F_GET_SEALS, 0));
  EXPECT_EQ(-EINVAL, call(SYS_fcntl, file.get(), 12345, take(8)));
  EXPECT_EQ(-EBADF, call(SYS_fcntl, 900, 12345, 0));
  const std::uint64_t owner = take(8);
  EXPECT_EQ(0, call(SYS_fcntl, file.get(), F_GETOWN_EX, owner));
}

TEST_F(IoDescriptorsTest, Terminal) {
  UniqueFd master(static_cast<int>(call(SYS_open, text("/dev/ptmx"), O_RDWR | O_NOCTTY)));
  ASSERT_TRUE(master);
  const std::uint64_t buffer = take(64);
  EXPECT_EQ(0, call(SYS_ioctl, master.get(), TIOCSPTLCK, put(0)));
  EXPECT_EQ(0, call(SYS_ioctl, master.get(), TIOCGPTN, buffer));
  const int number = get<int>(buffer);
  UniqueFd slave(static_cast<int>(
      call(SYS_open, text("/dev/pts/" + std::to_string(number)), O_RDWR | O_NOCTTY)));
  ASSERT_TRUE(slave);
  EXPECT_EQ(0, call(SYS_ioctl, slave.get(), TIOCSWINSZ, put(winsize{24, 80, 0, 0})));
  EXPECT_EQ(0, call(SYS_ioctl, master.get(), TIOCGWINSZ, buffer));
  EXPECT_EQ(80, get<winsize>(buffer).ws_col);
  struct termios wanted;
  ASSERT_EQ(0, ::ioctl(slave.get(), TCGETS, &wanted));
  EXPECT_EQ(0, call(SYS_ioctl, slave.get(), TCGETS, buffer));
  EXPECT_EQ(0, std::memcmp(&wanted, memory.at(buffer), sizeof wanted));
  wanted.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
  EXPECT_EQ(0, call(SYS_ioctl, slave.get(), TCSETS, put(wanted)));
  struct termios now;
  ASSERT_EQ(0, ::ioctl(slave.get(), TCGETS, &now));
  EXPECT_EQ(wanted.c_lflag, now.c_lflag);
  struct termios2 second;
  ASSERT_EQ(0, ::ioctl(slave.get(), TCGETS2, &second));
  EXPECT_EQ(0, call(SYS_ioctl, slave.get(), TCGETS2, buffer));  // size by its number
  EXPECT_EQ(second.c_ospeed, get<struct termios2>(buffer).c_ospeed);
  ASSERT_EQ(5, ::write(master.get(), "12345", 5));
  pollfd ready{slave.get(), POLLIN, 0};  // the kernel hands the bytes on in its own time
  ASSERT_EQ(1, ::poll(&ready, 1, 10000));
  EXPECT_EQ(0, call(SYS_ioctl, slave.get(), FIONREAD, buffer));
  EXPECT_EQ(5, get<int>(buffer));
  const std::int64_t peer = call(SYS_ioctl, master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY);
  EXPECT_GE(peer, 0);
  ::close(static_cast<int>(peer));
  // A long read of a terminal ends with what is there.
  const std::uint64_t long_buffer = take(3 * kMaxRound);
  EXPECT_EQ(5, call(SYS_read, slave.get(), long_buffer, 3 * kMaxRound));
}

TEST_F(IoDescriptorsTest, OtherRequests) {
  UniqueFd file(::open(path("file").c_str(), O_RDWR | O_CREAT, 0600)),
      socket(::socket(AF_INET, SOCK_DGRAM, 0));
  const std::uint64_t buffer = take(64);
  EXPECT_EQ(0, call(SYS_ioctl, socket.get(), FIONBIO, put(1)));
  EXPECT_TRUE(::fcntl(socket.get(), F_GETFL) & O_NONBLOCK);
  EXPECT_EQ(0, call(SYS_ioctl, file.get(), FIOCLEX, 0));
  EXPECT_EQ(FD_CLOEXEC, ::fcntl(file.get(), F_GETFD));
  EXPECT_EQ(0, call(SYS_ioctl, file.get(), FIONCLEX, 0));
  EXPECT_EQ(-ENOTTY, call(SYS_ioctl, file.get(), TCGETS, buffer));
  EXPECT_EQ(-ENOTTY, call(SYS_ioctl, file.get(), TIOCGWINSZ, buffer));
  EXPECT_EQ(-ENOTTY, call(SYS_ioctl, file.get(), 0xabcd1234, buffer));
  EXPECT_EQ(-ENOTTY,
            call(SYS_ioctl, file.get(), FS_IOC_FIEMAP, buffer));  // a tail of variable length
  EXPECT_EQ(-EBADF, call(SYS_ioctl, 900, 0xabcd1234, buffer));
  EXPECT_EQ(-EFAULT, call(SYS_ioctl, socket.get(), FIONBIO, kBadAddress));
  EXPECT_EQ(direct(::ioctl(file.get(), BLKGETSIZE64, memory.at(buffer))),
            call(SYS_ioctl, file.get(), BLKGETSIZE64, buffer));
  ifreq wanted{}, loopback{};
  std::strcpy(wanted.ifr_name, "lo");
  loopback = wanted;
  const std::uint64_t request = put(loopback);
  EXPECT_EQ(direct(::ioctl(socket.get(), SIOCGIFINDEX, &wanted)),
            call(SYS_ioctl, socket.get(), SIOCGIFINDEX, request));
  EXPECT_EQ(wanted.ifr_ifindex, get<ifreq>(request).ifr_ifindex);
}

TEST_F(IoDescriptorsTest, ResourceLimits) {
  home.descriptor_limit = 256;
  const std::uint64_t out = take(sizeof(rlimit));
  rlimit real;
  ASSERT_EQ(0, ::getrlimit(RLIMIT_NOFILE, &real));
  EXPECT_EQ(0, call(SYS_getrlimit, RLIMIT_NOFILE, out));
  EXPECT_EQ(std::min<rlim_t>(256, real.rlim_cur), get<rlimit>(out).rlim_cur);
  EXPECT_EQ(0, call(SYS_prlimit64, 0, RLIMIT_NOFILE, put(rlimit{100, 200}), out));
  EXPECT_EQ(-EPERM, call(SYS_prlimit64, ::getpid(), RLIMIT_NOFILE, put(rlimit{100, 300}), 0));
  EXPECT_EQ(-EINVAL, call(SYS_setrlimit, RLIMIT_NOFILE, put(rlimit{200, 100})));
  EXPECT_EQ(-EPERM, call(SYS_prlimit64, 1, RLIMIT_NOFILE, 0, out));
  EXPECT_EQ(0, call(SYS_setrlimit, RLIMIT_AS,
                    put(rlimit{1, real.rlim_max})));  // would end the home's own allocations
  rlimit now;
  ASSERT_EQ(0, ::getrlimit(RLIMIT_NOFILE, &now));
  EXPECT_EQ(real.rlim_cur, now.rlim_cur);
  ASSERT_EQ(0, ::getrlimit(RLIMIT_AS, &now));
  EXPECT_NE(1U, now.rlim_cur);
  ASSERT_EQ(0, ::getrlimit(RLIMIT_CORE, &real));
  EXPECT_EQ(0, call(SYS_prlimit64, 0, RLIMIT_CORE, put(rlimit{0, real.rlim_max}), out));
  EXPECT_EQ(real.rlim_cur, get<rlimit>(out).rlim_cur);
  ASSERT_EQ(0, ::getrlimit(RLIMIT_CORE, &now));
  EXPECT_EQ(0U, now.rlim_cur);
  ::setrlimit(RLIMIT_CORE, &real);
  EXPECT_EQ(-EFAULT, call(SYS_getrlimit, RLIMIT_CORE, kBadAddress));
  EXPECT_EQ(-EINVAL, call(SYS_getrlimit, 999, out));
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
