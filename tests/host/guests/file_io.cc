// Files and descriptors in several threads at once: open, read, write, pread, pwrite, readv,
// writev, lseek, stdio, stat, rename, link, unlink, directories, private and shared file mappings
// with msync, copies between descriptors; pipes, socket pairs, TCP over loopback, poll, epoll,
// eventfd and timerfd between threads.
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "require.h"

namespace {

constexpr int kThreads = 4;
std::string directory;

std::string name_of(int me, const char* name) {
  return directory + "/" + std::to_string(me) + "-" + name;
}

int open_file(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC, 0640);
  REQUIRE(fd >= 0);
  return fd;
}

void reads_and_writes(int me) {
  const std::string path = name_of(me, "plain");
  const int fd = open_file(path, O_RDWR | O_CREAT | O_EXCL);
  REQUIRE(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600) == -1 && errno == EEXIST);
  std::vector<std::uint32_t> numbers(700000);
  for (std::size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = static_cast<std::uint32_t>(i * 7 + me);
  const auto bytes = static_cast<ssize_t>(numbers.size() * 4);
  REQUIRE(write(fd, numbers.data(), bytes) == bytes);
  REQUIRE(lseek(fd, 0, SEEK_CUR) == bytes);
  std::vector<std::uint32_t> again(numbers.size());
  REQUIRE(pread(fd, again.data(), bytes, 0) == bytes && again == numbers);
  REQUIRE(pread(fd, again.data(), 100, bytes - 10) == 10);
  REQUIRE(pread(fd, again.data(), 100, bytes) == 0);
  const std::uint32_t mark = 0xabcdef;
  REQUIRE(pwrite(fd, &mark, sizeof mark, 4000) == 4);
  REQUIRE(lseek(fd, 4000, SEEK_SET) == 4000);
  char head[3], tail[5];
  iovec parts[] = {{head, sizeof head}, {tail, sizeof tail}};
  REQUIRE(readv(fd, parts, 2) == 8);
  std::uint32_t seen = 0;
  std::memcpy(&seen, head, 3);
  std::memcpy(reinterpret_cast<char*>(&seen) + 3, tail, 1);
  REQUIRE(seen == mark);
  char hello[] = "hello ", world[] = "world";
  iovec words[] = {{hello, 6}, {world, 5}};
  REQUIRE(pwritev(fd, words, 2, 0) == 11);
  char text[12] = {};
  REQUIRE(pread(fd, text, 11, 0) == 11 && std::strcmp(text, "hello world") == 0);
  REQUIRE(ftruncate(fd, 5) == 0);
  struct stat status {};
  REQUIRE(fstat(fd, &status) == 0 && status.st_size == 5 && S_ISREG(status.st_mode));
  REQUIRE(lseek(fd, 0, SEEK_SET) == 0);
  void* volatile nowhere = reinterpret_cast<void*>(8);
  REQUIRE(read(fd, nowhere, 4) == -1 && errno == EFAULT);
  REQUIRE(write(fd, nowhere, 4) == -1 && errno == EFAULT);
  // A number that no other thread's open() takes in between.
  const int high = fcntl(fd, F_DUPFD, 1000 + me);
  REQUIRE(high >= 1000 && close(fd) == 0 && close(high) == 0);
  REQUIRE(close(high) == -1 && errno == EBADF);
}

void standard_io(int me) {
  const std::string path = name_of(me, "stdio");
  FILE* file = std::fopen(path.c_str(), "w+");
  REQUIRE(file != nullptr);
  for (int i = 0; i < 20000; ++i) std::fprintf(file, "%d line %d\n", me, i);
  std::rewind(file);
  for (int i = 0; i < 20000; ++i) {
    int who = -1, line = -1;
    REQUIRE(std::fscanf(file, "%d line %d\n", &who, &line) == 2 && who == me && line == i);
  }
  REQUIRE(std::fseek(file, 2, SEEK_SET) == 0);
  char word[8] = {};
  REQUIRE(std::fread(word, 1, 4, file) == 4 && std::strcmp(word, "line") == 0);
  REQUIRE(std::fclose(file) == 0);
}

void names(int me) {
  const std::string path = name_of(me, "plain"), other = name_of(me, "renamed");
  struct stat status {};
  REQUIRE(rename(path.c_str(), other.c_str()) == 0);
  REQUIRE(stat(path.c_str(), &status) == -1 && errno == ENOENT);
  REQUIRE(link(other.c_str(), path.c_str()) == 0);
  REQUIRE(stat(path.c_str(), &status) == 0 && status.st_nlink == 2 &&
          (status.st_mode & 0777) == 0640);
  REQUIRE(unlink(path.c_str()) == 0);
  REQUIRE(symlink("nowhere", path.c_str()) == 0);
  char target[64] = {};
  REQUIRE(readlink(path.c_str(), target, sizeof target) == 7 &&
          std::strcmp(target, "nowhere") == 0);
  REQUIRE(lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode));
  REQUIRE(access(other.c_str(), R_OK) == 0 && access(path.c_str(), R_OK) == -1);
  REQUIRE(unlink(path.c_str()) == 0);
  const std::string sub = name_of(me, "folder");
  REQUIRE(mkdir(sub.c_str(), 0755) == 0);
  constexpr int kFiles = 300;
  for (int i = 0; i < kFiles; ++i)
    close(open_file(sub + "/entry-" + std::to_string(i), O_CREAT | O_WRONLY));
  std::set<std::string> found;
  DIR* stream = opendir(sub.c_str());
  REQUIRE(stream != nullptr);
  while (const dirent* entry = readdir(stream)) {
    if (entry->d_name[0] != '.') found.insert(entry->d_name);
  }
  closedir(stream);
  REQUIRE(found.size() == kFiles && found.count("entry-299") == 1);
  REQUIRE(rmdir(sub.c_str()) == -1 && errno == ENOTEMPTY);
  for (const std::string& name : found) REQUIRE(unlink((sub + "/" + name).c_str()) == 0);
  REQUIRE(rmdir(sub.c_str()) == 0);
}

void mappings(int me) {
  const std::string path = name_of(me, "mapped");
  const int fd = open_file(path, O_RDWR | O_CREAT);
  constexpr std::size_t kBytes = 40 * 4096 + 100;
  std::string contents(kBytes, static_cast<char>('a' + me));
  REQUIRE(write(fd, contents.data(), kBytes) == static_cast<ssize_t>(kBytes));
  auto* own = static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
  REQUIRE(own != MAP_FAILED && own[kBytes - 1] == 'a' + me && own[kBytes] == 0);
  own[0] = '#';
  char byte = 0;
  REQUIRE(pread(fd, &byte, 1, 0) == 1 && byte == 'a' + me);
  REQUIRE(munmap(own, kBytes) == 0);
  auto* shared =
      static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  REQUIRE(shared != MAP_FAILED);
  // Another thread writes through it; after msync the file has it.
  std::thread([shared] { shared[5 * 4096 + 7] = '!'; }).join();
  REQUIRE(msync(shared, kBytes, MS_SYNC) == 0);
  REQUIRE(pread(fd, &byte, 1, 5 * 4096 + 7) == 1 && byte == '!');
  shared[9] = '?';
  REQUIRE(munmap(shared, kBytes) == 0);
  REQUIRE(pread(fd, &byte, 1, 9) == 1 && byte == '?');
  auto* part = static_cast<char*>(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, fd, 5 * 4096));
  REQUIRE(part != MAP_FAILED && part[7] == '!');
  REQUIRE(munmap(part, 4096) == 0);
  REQUIRE(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, 999, 0) == MAP_FAILED && errno == EBADF);
  REQUIRE(close(fd) == 0);
}

void descriptors(int me) {
  const std::string path = name_of(me, "renamed");
  const int fd = open_file(path, O_RDWR | O_APPEND);
  const int copy = dup(fd);
  REQUIRE(copy >= 0 && write(copy, "+", 1) == 1 && write(fd, "+", 1) == 1);
  REQUIRE(lseek(copy, 0, SEEK_END) == 7);
  REQUIRE(flock(fd, LOCK_EX) == 0 && flock(fd, LOCK_UN) == 0);
  REQUIRE((fcntl(fd, F_GETFL) & O_APPEND) != 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_len = 1;
  REQUIRE(fcntl(fd, F_SETLK, &lock) == 0);
  const int target = open_file(name_of(me, "copy"), O_RDWR | O_CREAT);
  off_t from = 0;
  REQUIRE(sendfile(target, fd, &from, 100) == 7);
  REQUIRE(close(target) == 0 && close(copy) == 0 && close(fd) == 0);
}

// One thread sends, this one receives and adds up.
std::uint64_t stream_through(int receive_fd, int send_fd) {
  constexpr std::size_t kChunk = 10000, kChunks = 60;
  std::thread sender([send_fd] {
    std::vector<std::uint8_t> chunk(kChunk);
    for (std::size_t i = 0; i < kChunks; ++i) {
      for (std::size_t at = 0; at < kChunk; ++at) chunk[at] = static_cast<std::uint8_t>(i + at);
      for (std::size_t sent = 0; sent < kChunk;) {
        const ssize_t put = write(send_fd, chunk.data() + sent, kChunk - sent);
        REQUIRE(put > 0);
        sent += static_cast<std::size_t>(put);
      }
    }
    close(send_fd);
  });
  std::uint64_t sum = 0, total = 0;
  std::uint8_t buffer[3000];
  for (ssize_t got; (got = read(receive_fd, buffer, sizeof buffer)) > 0;) {
    for (ssize_t i = 0; i < got; ++i) {
      REQUIRE(buffer[i] == static_cast<std::uint8_t>(total / kChunk + total % kChunk));
      sum += buffer[i];
      ++total;
    }
  }
  sender.join();
  close(receive_fd);
  REQUIRE(total == kChunk * kChunks);
  return sum;
}

void streams() {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const std::uint64_t by_pipe = stream_through(ends[0], ends[1]);
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  REQUIRE(stream_through(ends[0], ends[1]) == by_pipe);
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(listen(listener, 4) == 0);
  REQUIRE(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  std::thread connector([&] {
    REQUIRE(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  });
  const int server = accept(listener, nullptr, nullptr);
  REQUIRE(server >= 0);
  connector.join();
  REQUIRE(stream_through(server, client) == by_pipe);
  close(listener);
}

void messages() {
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0);
  char hello[] = "hello", buffer[16] = {};
  iovec out{hello, 5}, in{buffer, sizeof buffer};
  msghdr message{};
  message.msg_iov = &out;
  message.msg_iovlen = 1;
  REQUIRE(sendmsg(ends[0], &message, 0) == 5);
  message.msg_iov = &in;
  REQUIRE(recvmsg(ends[1], &message, 0) == 5 && std::strcmp(buffer, "hello") == 0);
  REQUIRE(recv(ends[1], buffer, sizeof buffer, MSG_DONTWAIT) == -1 && errno == EAGAIN);
  int kind = 0;
  socklen_t length = sizeof kind;
  REQUIRE(getsockopt(ends[0], SOL_SOCKET, SO_TYPE, &kind, &length) == 0 && kind == SOCK_DGRAM);
  close(ends[0]);
  close(ends[1]);
}

void readiness() {
  int ends[2];
  REQUIRE(pipe2(ends, O_NONBLOCK) == 0);
  char byte;
  REQUIRE(read(ends[0], &byte, 1) == -1 && errno == EAGAIN);
  pollfd waiting{ends[0], POLLIN, 0};
  REQUIRE(poll(&waiting, 1, 10) == 0);
  std::thread writer([&] {
    usleep(10000);
    REQUIRE(write(ends[1], "x", 1) == 1);
  });
  REQUIRE(poll(&waiting, 1, -1) == 1 && waiting.revents == POLLIN);
  writer.join();

  const int events = eventfd(0, 0), timer = timerfd_create(CLOCK_MONOTONIC, 0);
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  REQUIRE(events >= 0 && timer >= 0 && epoll >= 0);
  for (const int fd : {ends[0], events, timer}) {
    epoll_event interest{};
    interest.events = EPOLLIN;
    interest.data.fd = fd;
    REQUIRE(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &interest) == 0);
  }
  itimerspec soon{};
  soon.it_value.tv_nsec = 10 * 1000 * 1000;
  REQUIRE(timerfd_settime(timer, 0, &soon, nullptr) == 0);
  std::thread signaller([events] {
    const std::uint64_t three = 3;
    for (int i = 0; i < 2; ++i) REQUIRE(write(events, &three, sizeof three) == sizeof three);
  });
  std::set<int> ready;
  while (ready.size() < 3) {
    epoll_event list[4];
    const int count = epoll_wait(epoll, list, 4, 5000);
    REQUIRE(count > 0);
    for (int i = 0; i < count; ++i) ready.insert(list[i].data.fd);
  }
  signaller.join();
  std::uint64_t value = 0;
  REQUIRE(read(events, &value, sizeof value) == sizeof value && value == 6);
  REQUIRE(read(timer, &value, sizeof value) == sizeof value && value == 1);
  for (const int fd : {ends[0], ends[1], events, timer, epoll}) REQUIRE(close(fd) == 0);
}

// All threads append whole records to one file through one descriptor.
void shared_log() {
  const std::string path = directory + "/log";
  const int fd = open_file(path, O_RDWR | O_CREAT | O_APPEND);
  std::vector<std::thread> threads;
  for (int me = 0; me < kThreads; ++me) {
    threads.emplace_back([fd, me] {
      for (int i = 0; i < 200; ++i) {
        const std::string record =
            std::to_string(me) + std::string(29, static_cast<char>('0' + me)) + "\n";
        REQUIRE(write(fd, record.data(), record.size()) == 31);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::string log(kThreads * 200 * 31, '\0');
  REQUIRE(pread(fd, log.data(), log.size(), 0) == static_cast<ssize_t>(log.size()));
  int counts[kThreads] = {};
  for (std::size_t at = 0; at < log.size(); at += 31) {
    const int me = log[at] - '0';
    REQUIRE(me >= 0 && me < kThreads && log[at + 30] == '\n' &&
            log.compare(at, 30, std::string(30, log[at])) == 0);
    ++counts[me];
  }
  for (const int count : counts) REQUIRE(count == 200);
  close(fd);
  unlink(path.c_str());
}

void everything(int me) {
  reads_and_writes(me);
  standard_io(me);
  names(me);
  mappings(me);
  descriptors(me);
  streams();
  messages();
  readiness();
  for (const char* name : {"renamed", "stdio", "mapped", "copy"}) {
    REQUIRE(unlink(name_of(me, name).c_str()) == 0);
  }
}

}  // namespace

int main() {
  char name[] = "/tmp/file_io-XXXXXX";
  REQUIRE(mkdtemp(name) != nullptr);
  directory = name;
  std::vector<std::thread> threads;
  for (int me = 0; me < kThreads; ++me) threads.emplace_back(everything, me);
  for (std::thread& thread : threads) thread.join();
  shared_log();
  REQUIRE(rmdir(name) == 0);
  std::printf("ok file_io\n");
}
