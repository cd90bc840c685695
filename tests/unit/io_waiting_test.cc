// Waiting for descriptors, and descriptors that stand for events.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/select.h>
#include <sys/timerfd.h>

#include <thread>

#include "base/unique_fd.h"
#include "tests/unit/io_guest.h"

namespace xenspan::hypervisor::usermode {
namespace {

class IoWaitingTest : public IoTest {
 protected:
  void SetUp() override {
    const std::uint64_t out = take(8);
    ASSERT_EQ(0, call(SYS_pipe2, out, O_CLOEXEC));
    reader.reset(get<int>(out));
    writer.reset(get<int>(out + 4));
  }
  void feed() { ASSERT_EQ(1, ::write(writer.get(), "x", 1)); }
  UniqueFd reader, writer;
};

TEST_F(IoWaitingTest, Poll) {
  const pollfd fds[3] = {{reader.get(), POLLIN, 77}, {-1, POLLIN, 77}, {writer.get(), POLLOUT, 77}};
  const std::uint64_t at = put(fds);
  EXPECT_EQ(1, call(SYS_poll, at, 3, -1));
  EXPECT_EQ(0, get<pollfd>(at).revents);
  EXPECT_EQ(0, get<pollfd>(at + 8).revents);
  EXPECT_EQ(POLLOUT, get<pollfd>(at + 16).revents);
  EXPECT_EQ(0, call(SYS_poll, at, 1, 1));
  feed();
  EXPECT_EQ(1, call(SYS_poll, at, 1, -1));
  EXPECT_EQ(POLLIN, get<pollfd>(at).revents);
  EXPECT_EQ(0, call(SYS_poll, 0, 0, 1));
  EXPECT_EQ(-EFAULT, call(SYS_poll, kBadAddress, 1, 1));
  EXPECT_EQ(-EINVAL, call(SYS_poll, at, 5000, 1));
  EXPECT_EQ(-EINVAL, call(SYS_poll, at, 0xffffffff, 1));
}

TEST_F(IoWaitingTest, PollSeesNoHiddenDescriptor) {
  UniqueFd hidden(::fcntl(writer.get(), F_DUPFD, 600));
  home.descriptor_limit = 600;
  const pollfd fds[2] = {{hidden.get(), POLLOUT, 0}, {reader.get(), POLLIN, 0}};
  const std::uint64_t at = put(fds);
  EXPECT_EQ(1, call(SYS_poll, at, 2, -1));  // comes back at once
  EXPECT_EQ(hidden.get(), get<pollfd>(at).fd);
  EXPECT_EQ(POLLNVAL, get<pollfd>(at).revents);
  feed();
  EXPECT_EQ(2, call(SYS_ppoll, at, 2, 0, 0, 8));
  EXPECT_EQ(POLLIN, get<pollfd>(at + 8).revents);
}

TEST_F(IoWaitingTest, PpollCountsDown) {
  const std::uint64_t at = put(pollfd{reader.get(), POLLIN, 0}), time = put(timespec{0, 2'000'000});
  EXPECT_EQ(0, call(SYS_ppoll, at, 1, time, text("\xff\xff\xff\xff\xff\xff\xff\xff"), 8));
  EXPECT_EQ(0, get<timespec>(time).tv_nsec);
  feed();
  const std::uint64_t long_time = put(timespec{1000, 0});
  EXPECT_EQ(1, call(SYS_ppoll, at, 1, long_time, 0, 8));
  EXPECT_LT(get<timespec>(long_time).tv_sec, 1000);
  EXPECT_EQ(-EINVAL, call(SYS_ppoll, at, 1, put(timespec{0, -1}), 0, 8));
}

TEST_F(IoWaitingTest, Select) {
  ::fd_set read_set, write_set;
  FD_ZERO(&read_set);
  FD_ZERO(&write_set);
  FD_SET(reader.get(), &read_set);
  FD_SET(writer.get(), &write_set);
  const std::uint64_t in = put(read_set), out = put(write_set), time = put(timeval{1000, 0});
  const int count = std::max(reader.get(), writer.get()) + 1;
  EXPECT_EQ(1, call(SYS_select, count, in, out, 0, time));
  EXPECT_EQ(0, std::memcmp(memory.at(out), &write_set, sizeof write_set));
  FD_ZERO(&read_set);
  EXPECT_EQ(0, std::memcmp(memory.at(in), &read_set, sizeof read_set));
  EXPECT_LT(get<timeval>(time).tv_sec, 1000);
  FD_SET(reader.get(), &read_set);
  feed();
  const std::uint64_t again = put(read_set);
  EXPECT_EQ(1, call(SYS_pselect6, count, again, 0, 0, put(timespec{1, 0}), 0x1234));
  EXPECT_EQ(0, std::memcmp(memory.at(again), &read_set, sizeof read_set));
  EXPECT_EQ(-EINVAL, call(SYS_select, -1, 0, 0, 0, time));
  EXPECT_EQ(-EFAULT, call(SYS_select, count, kBadAddress, 0, 0, time));
  FD_SET(900, &read_set);  // not open
  EXPECT_EQ(-EBADF, call(SYS_select, 901, put(read_set), 0, 0, time));
  EXPECT_EQ(0, call(SYS_select, 0, 0, 0, 0, put(timeval{0, 1000})));
}

TEST_F(IoWaitingTest, SelectIgnoresHiddenDescriptors) {
  UniqueFd hidden(::fcntl(writer.get(), F_DUPFD, 600));
  home.descriptor_limit = 600;
  ::fd_set set;
  FD_ZERO(&set);
  FD_SET(hidden.get(), &set);
  const std::uint64_t at = put(set);
  EXPECT_EQ(0, call(SYS_select, 700, 0, at, 0, put(timeval{0, 0})));
}

TEST_F(IoWaitingTest, Epoll) {
  UniqueFd epoll(static_cast<int>(call(SYS_epoll_create1, EPOLL_CLOEXEC)));
  ASSERT_TRUE(epoll);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 0x1122334455667788;
  EXPECT_EQ(0, call(SYS_epoll_ctl, epoll.get(), EPOLL_CTL_ADD, reader.get(), put(event)));
  EXPECT_EQ(-EEXIST, call(SYS_epoll_ctl, epoll.get(), EPOLL_CTL_ADD, reader.get(), put(event)));
  EXPECT_EQ(-EFAULT, call(SYS_epoll_ctl, epoll.get(), EPOLL_CTL_MOD, reader.get(), kBadAddress));
  const std::uint64_t out = take(10 * sizeof event);
  fill(out, 10 * sizeof event, 1);
  const std::string before = get_text(out, 10 * sizeof event);
  EXPECT_EQ(0, call(SYS_epoll_wait, epoll.get(), out, 10, 0));
  feed();
  EXPECT_EQ(1, call(SYS_epoll_wait, epoll.get(), out, 10, -1));
  EXPECT_EQ(0x1122334455667788U, get<epoll_event>(out).data.u64);
  EXPECT_EQ(before.substr(sizeof event), get_text(out + sizeof event, 9 * sizeof event));
  EXPECT_EQ(1, call(SYS_epoll_pwait, epoll.get(), out, 10, 0, 0x55, 8));
  EXPECT_EQ(1, call(SYS_epoll_pwait2, epoll.get(), out, 10, put(timespec{0, 0}), 0, 8));
  EXPECT_EQ(-EINVAL, call(SYS_epoll_wait, epoll.get(), out, 0, 0));
  EXPECT_EQ(-EINVAL, call(SYS_epoll_wait, epoll.get(), out, -1, 0));
  EXPECT_EQ(-EFAULT, call(SYS_epoll_wait, epoll.get(), kBadAddress, 10, 0));
  EXPECT_EQ(0, call(SYS_epoll_ctl, epoll.get(), EPOLL_CTL_DEL, reader.get(), kBadAddress));
  EXPECT_EQ(0, call(SYS_epoll_wait, epoll.get(), out, 10, 0));
  home.descriptor_limit = 500;
  UniqueFd hidden(::fcntl(reader.get(), F_DUPFD, 500));
  EXPECT_EQ(-EBADF, call(SYS_epoll_ctl, epoll.get(), EPOLL_CTL_ADD, hidden.get(), put(event)));
  EXPECT_EQ(-EBADF, call(SYS_epoll_wait, hidden.get(), out, 10, 0));
  UniqueFd old(static_cast<int>(call(SYS_epoll_create, 1)));
  EXPECT_TRUE(old);
  EXPECT_EQ(-EINVAL, call(SYS_epoll_create, 0));
}

TEST_F(IoWaitingTest, BlockingReadWaits) {
  const std::uint64_t buffer = take(10);
  std::thread later([&] { feed(); });
  EXPECT_EQ(1, call(SYS_read, reader.get(), buffer, 10));
  later.join();
}

TEST_F(IoWaitingTest, EventAndTimer) {
  UniqueFd event(static_cast<int>(call(SYS_eventfd2, 3, EFD_NONBLOCK)));
  const std::uint64_t value = put<std::uint64_t>(4);
  EXPECT_EQ(8, call(SYS_write, event.get(), value, 8));
  EXPECT_EQ(8, call(SYS_read, event.get(), value, 8));
  EXPECT_EQ(7U, get<std::uint64_t>(value));
  EXPECT_EQ(-EAGAIN, call(SYS_read, event.get(), value, 8));
  EXPECT_EQ(-EINVAL, call(SYS_read, event.get(), value, 4));
  UniqueFd plain(static_cast<int>(call(SYS_eventfd, 0)));
  EXPECT_TRUE(plain);
  UniqueFd timer(static_cast<int>(call(SYS_timerfd_create, CLOCK_MONOTONIC, 0)));
  const std::uint64_t old = take(sizeof(itimerspec));
  EXPECT_EQ(0, call(SYS_timerfd_settime, timer.get(), 0, put(itimerspec{{100, 0}, {100, 0}}), 0));
  EXPECT_EQ(0, call(SYS_timerfd_settime, timer.get(), 0, put(itimerspec{{0, 0}, {0, 1000}}), old));
  EXPECT_EQ(100, get<itimerspec>(old).it_interval.tv_sec);
  EXPECT_EQ(8, call(SYS_read, timer.get(), value, 8));
  EXPECT_EQ(1U, get<std::uint64_t>(value));
  EXPECT_EQ(0, call(SYS_timerfd_gettime, timer.get(), old));
  EXPECT_EQ(0, get<itimerspec>(old).it_value.tv_nsec);
}

TEST_F(IoWaitingTest, Inotify) {
  UniqueFd watcher(static_cast<int>(call(SYS_inotify_init1, IN_NONBLOCK)));
  const std::int64_t watch = call(SYS_inotify_add_watch, watcher.get(), text(directory), IN_CREATE);
  ASSERT_GT(watch, 0);
  UniqueFd made(::open(path("made").c_str(), O_CREAT | O_WRONLY, 0600));
  const std::uint64_t buffer = take(1000);
  EXPECT_GT(call(SYS_read, watcher.get(), buffer, 1000), 0);
  EXPECT_EQ(static_cast<std::uint32_t>(IN_CREATE), get<inotify_event>(buffer).mask);
  EXPECT_STREQ("made", reinterpret_cast<const char*>(memory.at(buffer) + sizeof(inotify_event)));
  EXPECT_EQ(0, call(SYS_inotify_rm_watch, watcher.get(), watch));
  UniqueFd old(static_cast<int>(call(SYS_inotify_init)));
  EXPECT_TRUE(old);
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
