// Sockets: addresses, options, messages with control data, many at once. Loopback and Unix pairs,
// really.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <thread>

#include "base/unique_fd.h"
#include "tests/unit/io_guest.h"

namespace xenspan::hypervisor::usermode {
namespace {

class IoSocketsTest : public IoTest {
 protected:
  std::pair<UniqueFd, UniqueFd> pair(int type) {
    const std::uint64_t out = take(8);
    EXPECT_EQ(0, call(SYS_socketpair, AF_UNIX, type, 0, out));
    return {UniqueFd(get<int>(out)), UniqueFd(get<int>(out + 4))};
  }
  struct Message {
    std::uint64_t header, name, control, payload;
  };
  // A msghdr in guest memory with one buffer.
  Message message(std::size_t payload, std::size_t name = 0, std::size_t control = 0) {
    const Message made{take(sizeof(mmsghdr)), take(name), take(control), take(payload)};
    const iovec piece{reinterpret_cast<void*>(made.payload), payload};
    msghdr header{};
    header.msg_name = name != 0 ? reinterpret_cast<void*>(made.name) : nullptr;
    header.msg_namelen = static_cast<socklen_t>(name);
    header.msg_iov = reinterpret_cast<iovec*>(put(piece));
    header.msg_iovlen = 1;
    header.msg_control = control != 0 ? reinterpret_cast<void*>(made.control) : nullptr;
    header.msg_controllen = control;
    std::memcpy(memory.at(made.header), &header, sizeof header);
    return made;
  }
  void put_rights(std::uint64_t control, int descriptor) {
    cmsghdr header{};
    header.cmsg_len = CMSG_LEN(sizeof descriptor);
    header.cmsg_level = SOL_SOCKET;
    header.cmsg_type = SCM_RIGHTS;
    std::memcpy(memory.at(control), &header, sizeof header);
    std::memcpy(memory.at(control) + sizeof header, &descriptor, sizeof descriptor);
  }
  static constexpr std::size_t kRights = CMSG_SPACE(sizeof(int));
};

TEST_F(IoSocketsTest, TcpConnectionFromBindToShutdown) {
  UniqueFd listener(static_cast<int>(call(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(0, call(SYS_setsockopt, listener.get(), SOL_SOCKET, SO_REUSEADDR, put(1), 4));
  EXPECT_EQ(0, call(SYS_bind, listener.get(), put(address), sizeof address));
  EXPECT_EQ(-EINVAL, call(SYS_bind, listener.get(), put(address), 1000));
  EXPECT_EQ(-EINVAL, call(SYS_bind, listener.get(), put(address), -1));
  EXPECT_EQ(0, call(SYS_listen, listener.get(), 5));
  const std::uint64_t name = take(128), length = put<socklen_t>(128);
  EXPECT_EQ(0, call(SYS_getsockname, listener.get(), name, length));
  ASSERT_EQ(sizeof address, get<socklen_t>(length));
  const auto bound = get<sockaddr_in>(name);
  UniqueFd client(static_cast<int>(call(SYS_socket, AF_INET, SOCK_STREAM, 0)));
  EXPECT_EQ(0, call(SYS_connect, client.get(), put(bound), sizeof bound));
  const std::uint64_t peer = take(128), short_length = put<socklen_t>(6);
  fill(peer, 128, 1);
  const std::string before = get_text(peer, 128);
  UniqueFd server(
      static_cast<int>(call(SYS_accept4, listener.get(), peer, short_length, SOCK_NONBLOCK)));
  ASSERT_TRUE(server);
  EXPECT_EQ(sizeof address, get<socklen_t>(short_length));   // the true length
  EXPECT_EQ(before.substr(6), get_text(peer + 6, 128 - 6));  // no more than asked for
  EXPECT_TRUE(::fcntl(server.get(), F_GETFL) & O_NONBLOCK);
  EXPECT_EQ(0, call(SYS_getpeername, server.get(), name, put<socklen_t>(128)));
  sockaddr_in mine;
  socklen_t mine_length = sizeof mine;
  ASSERT_EQ(0, ::getsockname(client.get(), reinterpret_cast<sockaddr*>(&mine), &mine_length));
  EXPECT_EQ(mine.sin_port, get<sockaddr_in>(name).sin_port);

  const std::uint64_t buffer = take(100);
  EXPECT_EQ(-EAGAIN, call(SYS_recvfrom, server.get(), buffer, 100, 0, 0, 0));
  EXPECT_EQ(5, call(SYS_sendto, client.get(), text("hello"), 5, 0, 0, 0));
  pollfd ready{server.get(), POLLIN, 0};
  ASSERT_EQ(1, ::poll(&ready, 1, 10000));
  EXPECT_EQ(5, call(SYS_recvfrom, server.get(), buffer, 100, 0, 0, 0));
  EXPECT_EQ("hello", get_text(buffer, 5));
  EXPECT_EQ(0, call(SYS_shutdown, client.get(), SHUT_WR));
  ASSERT_EQ(1, ::poll(&ready, 1, 10000));
  EXPECT_EQ(0, call(SYS_recvfrom, server.get(), buffer, 100, 0, 0, 0));
  // MSG_TRUNC throws a stream's bytes away and leaves the buffer as it is.
  ASSERT_EQ(4, ::write(server.get(), "away", 4));
  fill(buffer, 100, 2);
  const std::string untouched = get_text(buffer, 100);
  EXPECT_EQ(4, call(SYS_recvfrom, client.get(), buffer, 100, MSG_TRUNC, 0, 0));
  EXPECT_EQ(untouched, get_text(buffer, 100));
}

TEST_F(IoSocketsTest, Options) {
  UniqueFd socket(static_cast<int>(call(SYS_socket, AF_INET, SOCK_STREAM, 0)));
  const std::uint64_t value = put(0), length = put<socklen_t>(4);
  EXPECT_EQ(0, call(SYS_setsockopt, socket.get(), IPPROTO_TCP, TCP_NODELAY, put(1), 4));
  EXPECT_EQ(0, call(SYS_getsockopt, socket.get(), IPPROTO_TCP, TCP_NODELAY, value, length));
  EXPECT_EQ(1, get<int>(value));
  EXPECT_EQ(4U, get<socklen_t>(length));
  EXPECT_EQ(-EINVAL,
            call(SYS_getsockopt, socket.get(), SOL_SOCKET, SO_TYPE, value, put<socklen_t>(-1)));
  EXPECT_EQ(-EFAULT, call(SYS_getsockopt, socket.get(), SOL_SOCKET, SO_TYPE, value, 0));
  EXPECT_EQ(-EFAULT, call(SYS_getsockopt, socket.get(), SOL_SOCKET, SO_TYPE, kBadAddress, length));
  EXPECT_EQ(-EINVAL, call(SYS_setsockopt, socket.get(), SOL_SOCKET, SO_KEEPALIVE, put(1), 2));
  // A filter is reached through a pointer; its length is not in bytes.
  EXPECT_EQ(-ENOPROTOOPT,
            call(SYS_setsockopt, socket.get(), SOL_SOCKET, SO_ATTACH_FILTER, put(iovec{}), 16));
  EXPECT_EQ(-ENOPROTOOPT,
            call(SYS_getsockopt, socket.get(), SOL_SOCKET, SO_GET_FILTER, value, length));
  EXPECT_EQ(-ENOPROTOOPT, call(SYS_setsockopt, socket.get(), SOL_SOCKET, SO_ZEROCOPY, put(1), 4));
  UniqueFd null(::open("/dev/null", O_RDONLY));
  EXPECT_EQ(-ENOTSOCK, call(SYS_getsockopt, null.get(), SOL_SOCKET, SO_TYPE, value, length));
}

TEST_F(IoSocketsTest, DatagramsWithNames) {
  const auto unix_address = [&](const std::string& name) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.c_str(), name.size());
    return address;
  };
  UniqueFd one(static_cast<int>(call(SYS_socket, AF_UNIX, SOCK_DGRAM, 0)));
  UniqueFd two(static_cast<int>(call(SYS_socket, AF_UNIX, SOCK_DGRAM, 0)));
  const auto first = unix_address(path("one")), second = unix_address(path("two"));
  ASSERT_EQ(0, call(SYS_bind, one.get(), put(first), sizeof first));
  ASSERT_EQ(0, call(SYS_bind, two.get(), put(second), sizeof second));
  EXPECT_EQ(4, call(SYS_sendto, one.get(), text("ping"), 4, 0, put(second), sizeof second));
  const std::uint64_t buffer = take(100), name = take(128), length = put<socklen_t>(128);
  EXPECT_EQ(4, call(SYS_recvfrom, two.get(), buffer, 2, MSG_TRUNC, name,
                    length));  // longer than the buffer
  EXPECT_EQ(path("one"), get<sockaddr_un>(name).sun_path);
  EXPECT_EQ(-EAGAIN, call(SYS_recvfrom, two.get(), buffer, 100, MSG_DONTWAIT, name, length));
  EXPECT_EQ(-EFAULT, call(SYS_recvfrom, two.get(), buffer, 100, MSG_DONTWAIT, name, kBadAddress));
  EXPECT_EQ(-EFAULT, call(SYS_sendto, one.get(), kBadAddress, 4, 0, put(second), sizeof second));
  EXPECT_EQ(-EINVAL, call(SYS_sendto, one.get(), buffer, 4, 0, put(second), 200));
  EXPECT_EQ(-ENOTCONN, call(SYS_sendto, one.get(), buffer, 4, 0, 0, 0));

  const Message out = message(3), in = message(10, 128);
  std::memcpy(memory.at(out.payload), "abc", 3);
  ASSERT_EQ(0, ::connect(one.get(), reinterpret_cast<const sockaddr*>(&second), sizeof second));
  EXPECT_EQ(3, call(SYS_sendmsg, one.get(), out.header, 0));
  EXPECT_EQ(3, call(SYS_recvmsg, two.get(), in.header, 0));
  EXPECT_EQ("abc", get_text(in.payload, 3));
  EXPECT_EQ(path("one"), get<sockaddr_un>(in.name).sun_path);
  EXPECT_EQ(sizeof(sa_family_t) + path("one").size() + 1, get<msghdr>(in.header).msg_namelen);
}

TEST_F(IoSocketsTest, LongStreamGoesInRounds) {
  auto [one, other] = pair(SOCK_STREAM);
  constexpr std::size_t kLong = 3 * kMaxRound + 777;
  const Message out = message(kLong);
  fill(out.payload, kLong, 3);
  std::string got(kLong, '\0');
  const int reader = other.get();
  std::thread drain([&] {
    EXPECT_EQ(static_cast<ssize_t>(kLong), ::recv(reader, got.data(), kLong, MSG_WAITALL));
  });
  EXPECT_EQ(static_cast<std::int64_t>(kLong), call(SYS_sendmsg, one.get(), out.header, 0));
  EXPECT_EQ(4, rounds);
  drain.join();
  EXPECT_TRUE(same_bytes(got, get_text(out.payload, kLong)));
  const int writer = one.get();
  std::thread feed([&] {
    for (std::size_t done = 0; done < kLong;) {
      const ssize_t written =
          ::write(writer, got.data() + done, std::min<std::size_t>(50000, kLong - done));
      ASSERT_GT(written, 0);
      done += static_cast<std::size_t>(written);
    }
  });
  const std::uint64_t to = take(kLong);
  EXPECT_EQ(static_cast<std::int64_t>(kLong),
            call(SYS_recvfrom, other.get(), to, kLong, MSG_WAITALL, 0, 0));
  feed.join();
  EXPECT_TRUE(same_bytes(got, get_text(to, kLong)));
  // Without MSG_WAITALL what is there is enough.
  ASSERT_EQ(9, ::write(one.get(), "some more", 9));
  EXPECT_EQ(9, call(SYS_recvfrom, other.get(), to, kLong, 0, 0, 0));
  other.reset();
  EXPECT_EQ(-EPIPE, call(SYS_sendto, one.get(), to, 10, MSG_NOSIGNAL, 0, 0));
}

TEST_F(IoSocketsTest, LongDatagramIsTooLong) {
  auto [one, other] = pair(SOCK_SEQPACKET);
  const Message out = message(3 * kMaxRound);
  EXPECT_EQ(-EMSGSIZE, call(SYS_sendmsg, one.get(), out.header, 0));
  EXPECT_EQ(-EMSGSIZE, call(SYS_sendto, one.get(), out.payload, 3 * kMaxRound, 0, 0, 0));
  char byte;
  EXPECT_EQ(-EAGAIN, direct(::recv(other.get(), &byte, 1, MSG_DONTWAIT)));
}

TEST_F(IoSocketsTest, PassesDescriptors) {
  auto [one, other] = pair(SOCK_STREAM);
  int pipe[2];
  ASSERT_EQ(0, ::pipe(pipe));
  UniqueFd reader(pipe[0]), writer(pipe[1]);
  const Message out = message(1, 0, kRights), in = message(10, 0, 64);
  put_rights(out.control, writer.get());
  EXPECT_EQ(1, call(SYS_sendmsg, one.get(), out.header, 0));
  EXPECT_EQ(1, call(SYS_recvmsg, other.get(), in.header, MSG_CMSG_CLOEXEC));
  const auto header = get<msghdr>(in.header);
  ASSERT_EQ(CMSG_SPACE(sizeof(int)), header.msg_controllen);
  EXPECT_EQ(MSG_CMSG_CLOEXEC, header.msg_flags & MSG_CMSG_CLOEXEC);
  EXPECT_EQ(0, header.msg_flags & MSG_CTRUNC);
  UniqueFd passed(get<int>(in.control + sizeof(cmsghdr)));
  ASSERT_EQ(1, ::write(passed.get(), "!", 1));
  char byte = 0;
  EXPECT_EQ(1, ::read(reader.get(), &byte, 1));
  EXPECT_EQ('!', byte);
}

TEST_F(IoSocketsTest, HiddenDescriptorsDoNotPass) {
  auto [one, other] = pair(SOCK_STREAM);
  UniqueFd hidden(::fcntl(STDERR_FILENO, F_DUPFD, 500));
  home.descriptor_limit = 500;
  const Message out = message(1, 0, kRights), in = message(10, 0, 64);
  put_rights(out.control, hidden.get());
  EXPECT_EQ(-EBADF, call(SYS_sendmsg, one.get(), out.header, 0));
  // A received one that would be hidden is closed, and the guest is told.
  put_rights(out.control, one.get());
  home.descriptor_limit = other.get() + 1;
  const int next = ::dup(STDERR_FILENO);
  ::close(next);
  ASSERT_GE(next, home.descriptor_limit);
  EXPECT_EQ(1, call(SYS_sendmsg, one.get(), out.header, 0));
  EXPECT_EQ(1, call(SYS_recvmsg, other.get(), in.header, 0));
  EXPECT_EQ(0U, get<msghdr>(in.header).msg_controllen);
  EXPECT_EQ(MSG_CTRUNC, get<msghdr>(in.header).msg_flags & MSG_CTRUNC);
  EXPECT_EQ(-1, ::fcntl(next, F_GETFD));
}

TEST_F(IoSocketsTest, ManyMessagesAtOnce) {
  auto [one, other] = pair(SOCK_DGRAM);
  constexpr unsigned kCount = 5;
  const std::uint64_t out = take(kCount * sizeof(mmsghdr)), in = take(kCount * sizeof(mmsghdr));
  std::vector<Message> sent, received;
  for (unsigned i = 0; i < kCount; ++i) {
    sent.push_back(message(10 + i));
    received.push_back(message(100));
    fill(sent[i].payload, 10 + i, i);
    std::memcpy(memory.at(out + i * sizeof(mmsghdr)), memory.at(sent[i].header), sizeof(mmsghdr));
    std::memcpy(memory.at(in + i * sizeof(mmsghdr)), memory.at(received[i].header),
                sizeof(mmsghdr));
  }
  EXPECT_EQ(kCount, call(SYS_sendmmsg, one.get(), out, kCount, 0));
  EXPECT_EQ(12U, get<mmsghdr>(out + 2 * sizeof(mmsghdr)).msg_len);
  EXPECT_EQ(2, call(SYS_recvmmsg, other.get(), in, 2, 0, 0));
  EXPECT_EQ(3, call(SYS_recvmmsg, other.get(), in + 2 * sizeof(mmsghdr), 3, MSG_WAITFORONE,
                    put(timespec{1, 0})));
  for (unsigned i = 0; i < kCount; ++i) {
    EXPECT_EQ(10 + i, get<mmsghdr>(in + i * sizeof(mmsghdr)).msg_len);
    EXPECT_EQ(get_text(sent[i].payload, 10 + i), get_text(received[i].payload, 10 + i));
  }
  EXPECT_EQ(-EAGAIN, call(SYS_recvmmsg, other.get(), in, 2, MSG_DONTWAIT, 0));
  EXPECT_EQ(0, call(SYS_sendmmsg, one.get(), out, 0, 0));
  EXPECT_EQ(-EBADF, call(SYS_sendmmsg, -1, out, 0, 0));
  EXPECT_EQ(-EFAULT, call(SYS_sendmmsg, one.get(), kBadAddress, 1, 0));
  EXPECT_EQ(-EINVAL, call(SYS_recvmmsg, other.get(), in, 2, 0, put(timespec{-1, 0})));
}

TEST_F(IoSocketsTest, ControlDataLimits) {
  auto [one, other] = pair(SOCK_STREAM);
  const Message out = message(1);
  auto header = get<msghdr>(out.header);
  header.msg_control = reinterpret_cast<void*>(kBadAddress);
  header.msg_controllen = 32;
  EXPECT_EQ(-EFAULT, call(SYS_sendmsg, one.get(), put(header), 0));
  header.msg_controllen = 1 << 30;
  EXPECT_EQ(-ENOBUFS, call(SYS_sendmsg, one.get(), put(header), 0));
  header.msg_controllen = 0;
  header.msg_iovlen = 1025;
  EXPECT_EQ(-EMSGSIZE, call(SYS_sendmsg, one.get(), put(header), 0));
  EXPECT_EQ(-EFAULT, call(SYS_sendmsg, one.get(), 0, 0));
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
