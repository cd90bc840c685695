// Bytes that no correct peer sends: execute() and unpack() check every length and touch nothing
// beyond.
//
// Requests are damaged at random, but the call and its descriptors stay harmless: numbers are drawn
// from a list of calls that only look, and the descriptor limit is 0, so that no descriptor exists.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <random>

#include "dom0-daemon/hypervisor/usermode/io/wire.h"
#include "tests/unit/io_guest.h"

namespace xenspan::hypervisor::usermode {
namespace {

std::int64_t result_of(const Packet& answer) {
  std::int64_t result = 0;
  if (answer.size() < sizeof(io::AnswerHeader))
    ADD_FAILURE() << "an answer of " << answer.size() << " bytes";
  std::memcpy(&result, answer.data(), sizeof result);
  return result;
}

class IoHostileTest : public IoTest {
 protected:
  IoHostileTest() { home.descriptor_limit = 0; }

  Packet request_of(std::int64_t number, const std::array<std::uint64_t, 6>& args,
                    const Packet& tail = {}) {
    io::RequestHeader header;
    header.number = static_cast<std::uint16_t>(number);
    header.args = args;
    Packet request(sizeof header);
    std::memcpy(request.data(), &header, sizeof header);
    request.insert(request.end(), tail.begin(), tail.end());
    return request;
  }
  std::int64_t run(const Packet& request) {
    Packet answer;
    execute(home, request, answer);
    return result_of(answer);
  }
  static Packet record(std::uint32_t arg, std::uint32_t says, const std::string& bytes) {
    Packet packet(8 + bytes.size());
    std::memcpy(packet.data(), &arg, 4);
    std::memcpy(packet.data() + 4, &says, 4);
    std::memcpy(packet.data() + 8, bytes.data(), bytes.size());
    packet.resize((packet.size() + 7) & ~std::size_t{7});
    return packet;
  }
  // Calls that change nothing, whatever their arguments.
  const std::vector<std::int64_t> kLooking = {
      SYS_read,        SYS_pread64,    SYS_preadv2,         SYS_stat,      SYS_lstat,
      SYS_fstat,       SYS_newfstatat, SYS_statx,           SYS_statfs,    SYS_access,
      SYS_readlink,    SYS_getdents64, SYS_getcwd,          SYS_getxattr,  SYS_listxattr,
      SYS_uname,       SYS_sysinfo,    SYS_getrusage,       SYS_times,     SYS_getresuid,
      SYS_getgroups,   SYS_recvfrom,   SYS_recvmsg,         SYS_recvmmsg,  SYS_getsockopt,
      SYS_getsockname, SYS_epoll_wait, SYS_timerfd_gettime, SYS_getrlimit, SYS_fgetxattr,
      SYS_lseek,       SYS_sendto,     SYS_sendmsg,         SYS_sendmmsg,  SYS_write,
      SYS_pwritev2,    SYS_dup,        SYS_fcntl,           SYS_ioctl,     SYS_capget,
      SYS_getpriority, SYS_sendfile,   SYS_splice,          SYS_accept4,   SYS_connect,
      SYS_setsockopt};
};

TEST_F(IoHostileTest, NonsenseIsRefused) {
  EXPECT_EQ(-EINVAL, run({}));
  EXPECT_EQ(-EINVAL, run(Packet(10, 0xff)));
  EXPECT_EQ(-EINVAL, run(Packet(sizeof(io::RequestHeader), 0)));
  Packet other_version = request_of(SYS_getuid, {});
  other_version[0] ^= 1;
  EXPECT_EQ(-EINVAL, run(other_version));
  EXPECT_EQ(::getuid(), run(request_of(SYS_getuid, {})));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_getuid, {}, Packet(8))));  // a tail nobody asked for
  for (const std::int64_t number : {SYS_mmap, SYS_execve, SYS_kill, SYS_ptrace, 511, 65535})
    EXPECT_EQ(-ENOSYS, run(request_of(number, {})));
}

TEST_F(IoHostileTest, TextsMustBeWhole) {
  const std::array<std::uint64_t, 6> args{1, 0};
  EXPECT_EQ(0, run(request_of(SYS_access, args, record(0, 2, std::string("/\0", 2)))));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_access, args)));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_access, args, record(0, 1, "/"))));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_access, args, record(0, 0, ""))));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_access, args, record(1, 2, std::string("/\0", 2)))));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_access, args, record(0, 4, std::string("/\0/\0", 4)))));
  EXPECT_EQ(-EINVAL,
            run(request_of(SYS_access, args, record(0, 0xffffffff, std::string("/\0", 2)))));
  EXPECT_EQ(-EINVAL,
            run(request_of(SYS_access, args, record(0, 5000, std::string(4999, 'a') + '\0'))));
}

TEST_F(IoHostileTest, LengthsMustAgree) {
  home.descriptor_limit = 1024;
  const std::uint64_t huge = std::uint64_t{1} << 40;
  EXPECT_EQ(-EINVAL, run(request_of(SYS_read, {900, huge})));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_read, {900, kMaxRound + 1})));
  EXPECT_EQ(-EBADF, run(request_of(SYS_read, {900, kMaxRound})));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_write, {900, 100}, Packet(99))));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_write, {900, 100}, Packet(101))));
  EXPECT_EQ(-EBADF, run(request_of(SYS_write, {900, 100}, Packet(100))));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_getdents64, {900, 1, huge})));
  EXPECT_EQ(-EBADF, run(request_of(SYS_getdents64, {900, 1, 1000})));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_poll, {1, 2, 0}, record(0, 8, std::string(8, '\0')))));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_getsockopt, {900, 1, 1, 1, 1}, record(4, 2, "ab"))));
  EXPECT_EQ(-EINVAL,
            run(request_of(SYS_select, {1000, 1, 0, 0, 0}, record(1, 8, std::string(8, '\0')))));
  // Messages: one head says more than there is, or asks for more room than a round.
  const auto head = [](std::uint32_t name, std::uint32_t control, std::uint32_t payload) {
    const std::uint32_t values[6] = {name, control, payload, 0, 0, 0};
    Packet packet(sizeof values);
    std::memcpy(packet.data(), values, sizeof values);
    return packet;
  };
  const std::array<std::uint64_t, 6> one{900, 0, 1, ~std::uint64_t{0}};
  EXPECT_EQ(-EBADF, run(request_of(SYS_recvmsg, one, head(128, 100, 1000))));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_recvmsg, one, head(129, 0, 0))));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_recvmsg, one, head(0, 1 << 20, 0))));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_recvmsg, one, head(0, 0, 0x7fffffff))));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_recvmsg, one)));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_recvmsg, {900, 0, 2}, head(0, 0, 0))));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_sendmsg, one, head(0, 0, 100))));
  EXPECT_EQ(-EINVAL, run(request_of(SYS_recvmmsg, {900, 0, std::uint64_t{1} << 60})));
  Packet greedy;
  for (int i = 0; i < 3; ++i) {
    const Packet more = head(0, 0, kMaxRound);
    greedy.insert(greedy.end(), more.begin(), more.end());
  }
  EXPECT_EQ(-EINVAL, run(request_of(SYS_recvmmsg, {900, 0, 3}, greedy)));
}

TEST_F(IoHostileTest, PointersOfAPeerAreNeverUsed) {
  home.descriptor_limit = 1024;
  static int secret = 42;
  // A buffer that is only written: its argument is an address here, and must not reach the kernel.
  Packet answer;
  execute(home, request_of(SYS_getresuid, {reinterpret_cast<std::uint64_t>(&secret), 0, 0}),
          answer);
  EXPECT_EQ(42, secret);
  // A signal mask at an address where no memory is: it is left out.
  EXPECT_EQ(0,
            run(request_of(SYS_ppoll, {0, 0, 1, 0x10, 8}, record(2, 16, std::string(16, '\0')))));
  EXPECT_EQ(-EFAULT, run(request_of(SYS_getcwd, {0, 4096})));
}

TEST_F(IoHostileTest, RandomRequests) {
  std::mt19937_64 random(20240229);
  Packet answer;
  for (int round = 0; round < 60000; ++round) {
    io::RequestHeader header;
    header.number = static_cast<std::uint16_t>(kLooking[random() % kLooking.size()]);
    header.flags = static_cast<std::uint16_t>(random() % 4);
    for (std::uint64_t& arg : header.args) {
      const unsigned shift = static_cast<unsigned>(random() % 64);
      arg = random() % 3 == 0 ? random() % 64 : random() >> shift;
    }
    if (random() % 50 == 0) header.magic ^= static_cast<std::uint32_t>(random());
    Packet request(sizeof header + random() % 256);
    for (std::uint8_t& byte : request)
      byte = static_cast<std::uint8_t>(random() % 4 == 0 ? random() : random() % 8);
    std::memcpy(request.data(), &header, sizeof header);
    execute(home, request, answer);
    EXPECT_LE(answer.size(), kMaxRound + io::kMaxExtra);
    result_of(answer);
  }
}

TEST_F(IoHostileTest, DamagedRequests) {
  // Good requests with a few bytes changed: deeper than pure noise gets.
  std::mt19937_64 random(7);
  const std::uint64_t buffer = take(4096), name = text("/nowhere/at/all"),
                      length = put<socklen_t>(64);
  const iovec pieces[2] = {{reinterpret_cast<void*>(buffer), 100},
                           {reinterpret_cast<void*>(buffer), 50}};
  const std::uint64_t array = put(pieces);
  msghdr header{};
  header.msg_iov = reinterpret_cast<iovec*>(array);
  header.msg_iovlen = 2;
  header.msg_control = reinterpret_cast<void*>(buffer);
  header.msg_controllen = 64;
  const std::uint64_t message = put(header);
  const Call calls[] = {{SYS_read, {50, buffer, 4096}},
                        {SYS_write, {50, buffer, 200}},
                        {SYS_stat, {name, buffer}},
                        {SYS_readlink, {name, buffer, 100}},
                        {SYS_getxattr, {name, name, buffer, 100}},
                        {SYS_writev, {50, array, 2}},
                        {SYS_recvmsg, {50, message, 0}},
                        {SYS_sendmsg, {50, message, 0}},
                        {SYS_getsockname, {50, buffer, length}},
                        {SYS_ioctl, {50, 0x5401, buffer}},
                        {SYS_fcntl, {50, F_GETLK, buffer}}};
  Packet request, answer;
  for (int round = 0; round < 60000; ++round) {
    const Call& call = calls[random() % std::size(calls)];
    if (pack(call, {}, memory, request) != 0) continue;
    // Not the number, and not the first argument: both keep the call harmless.
    const std::size_t first = offsetof(io::RequestHeader, args) + 8;
    for (unsigned i = 0; i < 1 + random() % 4; ++i)
      request[first + random() % (request.size() - first)] = static_cast<std::uint8_t>(random());
    if (random() % 4 == 0) request.resize(sizeof(io::RequestHeader) + random() % 100);
    execute(home, request, answer);
    EXPECT_LT(result_of(answer), 0);
  }
}

TEST_F(IoHostileTest, DamagedAnswers) {
  // The home lies: nothing outside the guest's own buffer is written.
  std::mt19937_64 random(11);
  const std::uint64_t before = take(4096), buffer = take(128), after = take(4096);
  const std::uint64_t length = put<socklen_t>(32);
  const Call calls[] = {{SYS_read, {50, buffer, 128}},     {SYS_getcwd, {buffer, 128}},
                        {SYS_fstat, {50, buffer - 8}},     {SYS_getsockname, {50, buffer, length}},
                        {SYS_recvfrom, {50, buffer, 128}}, {SYS_epoll_wait, {50, buffer, 10, 0}},
                        {SYS_ioctl, {50, 0x5413, buffer}}, {SYS_poll, {buffer, 16, 0}}};
  for (int round = 0; round < 60000; ++round) {
    const Call& call = calls[random() % std::size(calls)];
    std::memset(memory.at(before), 0, 4096 + 128 + 4096);
    std::memset(memory.at(length), 0, 4);
    *memory.at(length) = 32;
    Packet answer(random() % 400);
    for (std::uint8_t& byte : answer)
      byte = static_cast<std::uint8_t>(random() % 3 == 0 ? random() : random() % 4);
    const std::int64_t result = static_cast<std::int64_t>(random() % 300) - 20;
    if (answer.size() >= sizeof result) std::memcpy(answer.data(), &result, sizeof result);
    Progress progress;
    unpack(call, answer, memory, progress);
    ASSERT_EQ(std::string(4096 - 8, '\0'), get_text(before, 4096 - 8));
    ASSERT_EQ(std::string(4096 - 8, '\0'), get_text(after + 8, 4096 - 8));
  }
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
