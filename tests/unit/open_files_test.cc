// What can be opened again on another host, and what is bound to this one.
#include "dom0-daemon/hypervisor/usermode/open_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace xenspan::hypervisor::usermode {
namespace {

class OpenFilesTest : public ::testing::Test {
 protected:
  OpenFilesTest() {
    char name[] = "/tmp/open_files_XXXXXX";
    directory_ = ::mkdtemp(name);
  }
  ~OpenFilesTest() override { std::filesystem::remove_all(directory_); }

  std::string make(const std::string& name, const std::string& text) {
    const std::string path = directory_ + "/" + name;
    std::ofstream(path) << text;
    return path;
  }
  UniqueFd open(const std::string& path, int flags) {
    return UniqueFd(::open(path.c_str(), flags | O_CLOEXEC));
  }
  // The descriptor as found; nullptr: it is bound.
  const OpenFile* find(int number) {
    found_ = look_at_open_files(1024);
    const auto each = std::find_if(found_.files.begin(), found_.files.end(),
                                   [&](const OpenFile& file) { return file.number == number; });
    return each == found_.files.end() ? nullptr : &*each;
  }
  std::string bound(int number) {
    EXPECT_EQ(find(number), nullptr) << number;
    const std::string start = std::to_string(number) + " ";
    for (const std::string& each : found_.bound)
      if (each.starts_with(start)) return each.substr(start.size());
    return "";
  }

  std::string directory_;
  OpenFiles found_;
};

TEST_F(OpenFilesTest, AFileIsOpenedAgainWhereItWas) {
  const std::string path = make("in", "0123456789");
  const UniqueFd fd = open(path, O_RDONLY);
  ASSERT_EQ(::lseek(fd.get(), 4, SEEK_SET), 4);
  const OpenFile* file = find(fd.get());
  ASSERT_NE(file, nullptr);
  Packet packet;
  Writer out(packet);
  put(*file, out);
  Reader in(packet);
  const auto taken = take_open_file(in);
  ASSERT_TRUE(taken);
  EXPECT_EQ(*taken, *file);
  EXPECT_EQ(taken->close_on_exec, 1);
  const auto again = open_again(*taken);
  ASSERT_TRUE(again) << again.error().message;
  char letter = 0;
  ASSERT_EQ(::read(again->get(), &letter, 1), 1);
  EXPECT_EQ(letter, '4');
  EXPECT_EQ(::lseek(fd.get(), 0, SEEK_CUR), 4) << "looking has changed something";
}

// It is neither made nor emptied once more.
TEST_F(OpenFilesTest, AnOutputFileIsAppendedTo) {
  const std::string path = directory_ + "/out";
  const UniqueFd fd(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
  ASSERT_EQ(::write(fd.get(), "ab", 2), 2);
  const OpenFile* file = find(fd.get());
  ASSERT_NE(file, nullptr);
  const auto again = open_again(*file);
  ASSERT_TRUE(again) << again.error().message;
  ASSERT_EQ(::write(again->get(), "cd", 2), 2);
  std::ifstream in(path);
  std::string text;
  in >> text;
  EXPECT_EQ(text, "abcd");
}

TEST_F(OpenFilesTest, CopiesOfADescriptorStayCopies) {
  const std::string path = make("in", "text");
  const UniqueFd fd = open(path, O_RDONLY), other = open(path, O_RDONLY);
  const UniqueFd copy(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  const int first = std::min(fd.get(), copy.get()), second = std::max(fd.get(), copy.get());
  ASSERT_NE(find(second), nullptr);
  EXPECT_EQ(find(second)->same_as, first);
  EXPECT_EQ(find(first)->same_as, -1);
  EXPECT_EQ(find(other.get())->same_as, -1);
}

TEST_F(OpenFilesTest, DevicesThatAreTheSameEverywhereGoAlong) {
  for (const char* path : {"/dev/null", "/dev/zero", "/dev/urandom"}) {
    const UniqueFd fd = open(path, O_RDONLY);
    const OpenFile* file = find(fd.get());
    ASSERT_NE(file, nullptr) << path;
    EXPECT_TRUE(open_again(*file)) << path;
  }
}

TEST_F(OpenFilesTest, WhatIsBoundIsNamed) {
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  const UniqueFd reader(pipe[0]), writer(pipe[1]);
  EXPECT_EQ(bound(reader.get()), "pipe");
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(bound(socket.get()), "socket");
  const UniqueFd poll(::epoll_create1(EPOLL_CLOEXEC));
  EXPECT_EQ(bound(poll.get()), "eventpoll");
  const std::string fifo = directory_ + "/fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const UniqueFd named = open(fifo, O_RDWR);
  EXPECT_EQ(bound(named.get()), "named pipe " + fifo);
  const std::string gone = make("gone", "text");
  const UniqueFd deleted = open(gone, O_RDONLY);
  ::unlink(gone.c_str());
  EXPECT_EQ(bound(deleted.get()), "deleted file " + gone + " (deleted)");
  const std::string mine = make("mine", "text");
  const UniqueFd locked = open(mine, O_RDWR);
  ASSERT_EQ(::flock(locked.get(), LOCK_EX), 0);
  EXPECT_EQ(bound(locked.get()), "locked file " + mine);
  const UniqueFd kernel = open("/proc/self/status", O_RDONLY);
  EXPECT_TRUE(bound(kernel.get()).starts_with("file of the kernel /proc/")) << bound(kernel.get());
}

TEST_F(OpenFilesTest, AnotherFileIsRefused) {
  const std::string path = make("data", "text");
  const UniqueFd fd = open(path, O_RDWR);
  const OpenFile* found = find(fd.get());
  ASSERT_NE(found, nullptr);
  const OpenFile file = *found;
  const std::string other = make("other", "text");
  std::filesystem::last_write_time(other, std::filesystem::last_write_time(path));
  std::filesystem::rename(other, path);
  auto again = open_again(file);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().message,
            std::to_string(fd.get()) + " (" + path + ") is another file there");
  // A copy is as good where it is read only.
  OpenFile read = file;
  read.flags = O_RDONLY;
  EXPECT_TRUE(open_again(read));
  std::ofstream(path) << "other text";
  EXPECT_FALSE(open_again(read));
  ::unlink(path.c_str());
  again = open_again(file);
  ASSERT_FALSE(again);
  EXPECT_NE(again.error().message.find("cannot be opened: No such file"), std::string::npos);
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
