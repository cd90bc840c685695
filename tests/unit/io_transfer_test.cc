// Reading and writing: one buffer, many buffers, long transfers in rounds, bad memory on the way.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <thread>

#include "base/unique_fd.h"
#include "tests/unit/io_guest.h"

namespace xenspan::hypervisor::usermode {
namespace {

class IoTransferTest : public IoTest {
 protected:
  int open_new(const std::string& name, int flags = O_RDWR | O_CREAT) {
    return ::open(path(name).c_str(), flags, 0600);
  }
  std::string contents(const std::string& name) {
    UniqueFd file(::open(path(name).c_str(), O_RDONLY));
    std::string bytes(static_cast<std::size_t>(std::filesystem::file_size(path(name))), '\0');
    EXPECT_EQ(static_cast<ssize_t>(bytes.size()), ::read(file.get(), bytes.data(), bytes.size()));
    return bytes;
  }
  // An array of struct iovec in guest memory.
  std::uint64_t vectors(const std::vector<std::pair<std::uint64_t, std::size_t>>& pieces) {
    const std::uint64_t address = take(pieces.size() * sizeof(iovec) + 1);
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const iovec entry{reinterpret_cast<void*>(pieces[i].first), pieces[i].second};
      std::memcpy(memory.at(address) + i * sizeof entry, &entry, sizeof entry);
    }
    return address;
  }
};

constexpr std::size_t kLong = 5 * kMaxRound + 12345;

TEST_F(IoTransferTest, LongFileIsEqualAfterRounds) {
  UniqueFd file(open_new("long"));
  const std::uint64_t from = take(kLong), to = take(kLong);
  fill(from, kLong, 1);
  EXPECT_EQ(static_cast<std::int64_t>(kLong), call(SYS_write, file.get(), from, kLong));
  EXPECT_EQ(6, rounds);
  EXPECT_TRUE(same_bytes(contents("long"), get_text(from, kLong)));
  EXPECT_EQ(0, call(SYS_lseek, file.get(), 0, SEEK_SET));
  EXPECT_EQ(static_cast<std::int64_t>(kLong), call(SYS_read, file.get(), to, kLong + 100));
  EXPECT_TRUE(same_bytes(get_text(from, kLong), get_text(to, kLong)));
  EXPECT_EQ(0, call(SYS_read, file.get(), to, kLong));
}

TEST_F(IoTransferTest, PositionedRoundsAdvanceTheOffsetOnly) {
  UniqueFd file(open_new("positioned"));
  const std::uint64_t from = take(kLong), to = take(kLong);
  fill(from, kLong, 2);
  EXPECT_EQ(static_cast<std::int64_t>(kLong), call(SYS_pwrite64, file.get(), from, kLong, 777));
  EXPECT_EQ(static_cast<std::int64_t>(kLong), call(SYS_pread64, file.get(), to, kLong, 777));
  EXPECT_TRUE(same_bytes(get_text(from, kLong), get_text(to, kLong)));
  EXPECT_EQ(0, ::lseek(file.get(), 0, SEEK_CUR));
  EXPECT_TRUE(same_bytes(std::string(777, '\0') + get_text(from, kLong), contents("positioned")));
  EXPECT_EQ(-EINVAL, call(SYS_pread64, file.get(), to, 8, -1));
}

TEST_F(IoTransferTest, VectorsAreGatheredAndScattered) {
  UniqueFd file(open_new("vectors"));
  const std::size_t sizes[] = {0, 1, 4096, 7, kMaxRound + 5, 0, 99999, 3 * kMaxRound};
  std::vector<std::pair<std::uint64_t, std::size_t>> out, in;
  std::string all;
  for (const std::size_t bytes : sizes) {
    out.emplace_back(take(bytes), bytes);
    fill(out.back().first, bytes, static_cast<std::uint32_t>(bytes));
    all += get_text(out.back().first, bytes);
  }
  in.emplace_back(take(all.size()), 10);
  in.emplace_back(in[0].first + 10, all.size() - 10);
  const auto total = static_cast<std::int64_t>(all.size());
  EXPECT_EQ(total, call(SYS_writev, file.get(), vectors(out), out.size()));
  EXPECT_TRUE(same_bytes(all, contents("vectors")));
  EXPECT_EQ(total, call(SYS_preadv, file.get(), vectors(in), 2, 0, 0));
  EXPECT_TRUE(same_bytes(all, get_text(in[0].first, all.size())));
  std::memset(memory.at(in[0].first), 0, all.size());
  EXPECT_EQ(total - 3, call(SYS_preadv2, file.get(), vectors(in), 2, 3, 0, 0));
  EXPECT_TRUE(same_bytes(all.substr(3), get_text(in[0].first, all.size() - 3)));
  EXPECT_EQ(0, ::lseek(file.get(), 0, SEEK_SET));
  EXPECT_EQ(total, call(SYS_preadv2, file.get(), vectors(in), 2, -1, 0, 0));
  EXPECT_EQ(total, ::lseek(file.get(), 0, SEEK_CUR));
  EXPECT_EQ(total, call(SYS_pwritev, file.get(), vectors(out), out.size(), total, 0));
  EXPECT_TRUE(same_bytes(all + all, contents("vectors")));
  EXPECT_EQ(-EOPNOTSUPP, call(SYS_pwritev2, file.get(), vectors(out), 2, 0, 0, 0x40000000));
}

TEST_F(IoTransferTest, ManySmallVectors) {
  UniqueFd file(open_new("many"));
  std::vector<std::pair<std::uint64_t, std::size_t>> pieces;
  const std::uint64_t bytes = take(1024);
  fill(bytes, 1024, 3);
  for (std::uint64_t i = 0; i < 1024; ++i) pieces.emplace_back(bytes + i, 1);
  EXPECT_EQ(1024, call(SYS_writev, file.get(), vectors(pieces), 1024));
  EXPECT_TRUE(same_bytes(get_text(bytes, 1024), contents("many")));
  EXPECT_EQ(-EINVAL, call(SYS_writev, file.get(), vectors(pieces), 1025));
  EXPECT_EQ(0, call(SYS_writev, file.get(), vectors(pieces), 0));
  EXPECT_EQ(-EINVAL, call(SYS_writev, file.get(), vectors({{bytes, std::size_t{1} << 63}}), 1));
  EXPECT_EQ(-EFAULT, call(SYS_writev, file.get(), kBadAddress, 1));
}

TEST_F(IoTransferTest, ErrorsAreTheKernels) {
  UniqueFd read_only(::open("/dev/null", O_RDONLY)), folder(::open(directory.c_str(), O_RDONLY));
  const std::uint64_t buffer = take(4096);
  EXPECT_EQ(-EBADF, call(SYS_read, -1, buffer, 10));
  EXPECT_EQ(-EBADF, call(SYS_read, 900, buffer, 10));
  EXPECT_EQ(-EBADF, call(SYS_write, read_only.get(), buffer, 10));
  EXPECT_EQ(-EISDIR, call(SYS_read, folder.get(), buffer, 10));
  EXPECT_EQ(-EINVAL, call(SYS_read, read_only.get(), buffer, -1));
  EXPECT_EQ(0, call(SYS_read, read_only.get(), buffer, 10));
}

TEST_F(IoTransferTest, BadMemoryCutsAWrite) {
  UniqueFd file(open_new("cut"));
  const std::uint64_t buffer = take(4 * kMaxRound);
  const std::uint64_t page = (buffer + 4095) & ~std::uint64_t{4095};
  fill(buffer, 4 * kMaxRound, 4);
  memory.make_bad(page + 8192, 4096);
  const auto good = static_cast<std::int64_t>(page + 8192 - buffer);
  EXPECT_EQ(good, call(SYS_write, file.get(), buffer, 100000));
  EXPECT_EQ(-EFAULT, call(SYS_write, file.get(), page + 8192, 10));
  EXPECT_EQ(good, ::lseek(file.get(), 0, SEEK_CUR));
  // In the second round, at its first byte: nothing more is sent.
  const std::uint64_t start = page + 12288;
  memory.make_bad(start + kMaxRound, 4096);
  EXPECT_EQ(static_cast<std::int64_t>(kMaxRound),
            call(SYS_pwrite64, file.get(), start, 2 * kMaxRound, 0));
  EXPECT_TRUE(same_bytes(contents("cut"), get_text(start, kMaxRound)));
}

TEST_F(IoTransferTest, BadMemoryCutsARead) {
  UniqueFd file(open_new("source"));
  const std::string bytes(3 * kMaxRound, 'x');
  ASSERT_EQ(static_cast<ssize_t>(bytes.size()), ::write(file.get(), bytes.data(), bytes.size()));
  const std::uint64_t buffer = take(3 * kMaxRound);
  EXPECT_EQ(-EFAULT, call(SYS_pread64, file.get(), kBadAddress, 10, 0));
  memory.make_bad(buffer + kMaxRound, kMaxRound);
  EXPECT_EQ(static_cast<std::int64_t>(kMaxRound),
            call(SYS_pread64, file.get(), buffer, 3 * kMaxRound, 0));
  EXPECT_EQ('x', get_text(buffer + kMaxRound - 1, 1)[0]);
}

TEST_F(IoTransferTest, PipeReadsOneRoundAndWritesAll) {
  int pipe[2];
  ASSERT_EQ(0, ::pipe(pipe));
  UniqueFd reader(pipe[0]), writer(pipe[1]);
  const std::uint64_t from = take(kLong), to = take(kLong);
  fill(from, kLong, 5);
  std::string got;
  std::thread drain([&] {
    std::vector<char> buffer(100000);
    for (ssize_t n; (n = ::read(reader.get(), buffer.data(), buffer.size())) > 0;)
      got.append(buffer.data(), static_cast<std::size_t>(n));
  });
  EXPECT_EQ(static_cast<std::int64_t>(kLong), call(SYS_write, writer.get(), from, kLong));
  writer.reset();
  drain.join();
  EXPECT_TRUE(same_bytes(got, get_text(from, kLong)));
  // A long read takes what is there and does not wait for more.
  ASSERT_EQ(0, ::pipe(pipe));
  reader.reset(pipe[0]);
  writer.reset(pipe[1]);
  const int room = ::fcntl(writer.get(), F_SETPIPE_SZ, 1 << 20);
  ASSERT_EQ(1 << 20, room);
  ASSERT_EQ(room, ::write(writer.get(), got.data(), static_cast<std::size_t>(room)));
  EXPECT_EQ(room, call(SYS_read, reader.get(), to, kLong));
  EXPECT_EQ(got.substr(0, static_cast<std::size_t>(room)),
            get_text(to, static_cast<std::size_t>(room)));
}

TEST_F(IoTransferTest, NonBlockingPipe) {
  int pipe[2];
  ASSERT_EQ(0, ::pipe2(pipe, O_NONBLOCK));
  UniqueFd reader(pipe[0]), writer(pipe[1]);
  const std::uint64_t buffer = take(kLong);
  EXPECT_EQ(-EAGAIN, call(SYS_read, reader.get(), buffer, 10));
  ASSERT_EQ(1 << 20, ::fcntl(writer.get(), F_SETPIPE_SZ, 1 << 20));
  EXPECT_EQ(1 << 20, call(SYS_write, writer.get(), buffer, kLong));  // full after the first round
  EXPECT_EQ(-EAGAIN, call(SYS_write, writer.get(), buffer, kLong));
}

TEST_F(IoTransferTest, DeviceFillsTheWholeBuffer) {
  UniqueFd zero(::open("/dev/zero", O_RDONLY));
  const std::uint64_t buffer = take(kLong);
  fill(buffer, kLong, 6);
  EXPECT_EQ(static_cast<std::int64_t>(kLong), call(SYS_read, zero.get(), buffer, kLong));
  EXPECT_TRUE(same_bytes(std::string(kLong, '\0'), get_text(buffer, kLong)));
}

TEST_F(IoTransferTest, LongMessageIsNotSplit) {
  int pair[2];
  ASSERT_EQ(0, ::socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
  UniqueFd one(pair[0]), other(pair[1]);
  const std::uint64_t buffer = take(kLong);
  EXPECT_EQ(-EMSGSIZE, call(SYS_write, one.get(), buffer, kLong));
  EXPECT_EQ(-EMSGSIZE, direct(::write(one.get(), memory.at(buffer), kLong)));
  char byte;
  EXPECT_EQ(-EAGAIN, direct(::recv(other.get(), &byte, 1, MSG_DONTWAIT)));
}

TEST_F(IoTransferTest, KernelCopies) {
  UniqueFd source(open_new("a")), target(open_new("b"));
  const std::string bytes(300000, 'k');
  ASSERT_EQ(300000, ::write(source.get(), bytes.data(), bytes.size()));
  const std::uint64_t offset = put<std::int64_t>(100);
  EXPECT_EQ(200000, call(SYS_sendfile, target.get(), source.get(), offset, 200000));
  EXPECT_EQ(200100, get<std::int64_t>(offset));
  const std::uint64_t in = put<std::int64_t>(0), out = put<std::int64_t>(200000);
  EXPECT_EQ(1000, call(SYS_copy_file_range, source.get(), in, target.get(), out, 1000, 0));
  EXPECT_EQ(1000, get<std::int64_t>(in));
  EXPECT_EQ(201000, get<std::int64_t>(out));
  EXPECT_TRUE(same_bytes(std::string(201000, 'k'), contents("b")));
  int pipe[2];
  ASSERT_EQ(0, ::pipe(pipe));
  UniqueFd reader(pipe[0]), writer(pipe[1]);
  const std::uint64_t from = put<std::int64_t>(5);
  EXPECT_EQ(4096, call(SYS_splice, source.get(), from, writer.get(), 0, 4096, 0));
  EXPECT_EQ(4101, get<std::int64_t>(from));
  int second[2];
  ASSERT_EQ(0, ::pipe(second));
  UniqueFd reader2(second[0]), writer2(second[1]);
  EXPECT_EQ(4096, call(SYS_tee, reader.get(), writer2.get(), 4096, 0));
  EXPECT_EQ(-EFAULT, call(SYS_sendfile, target.get(), source.get(), kBadAddress, 10));
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
