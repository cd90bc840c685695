// Worker processes as the daemon sees them, and processes known by id and start time. Real
// processes throughout.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <optional>

#include "dom0-daemon/cli/program.h"
#include "dom0-daemon/daemon/slice_process.h"

namespace xenspan::daemon {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class SliceProcessTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(mkdtemp(folder_), nullptr); }
  void TearDown() override {
    const std::string command = std::string("rm -rf '") + folder_ + "'";
    EXPECT_EQ(std::system(command.c_str()), 0);
  }
  std::string program(const std::string& body) {
    const std::string path = std::string(folder_) + "/worker";
    std::ofstream(path) << "#!/bin/sh\n" << body << "\n";
    chmod(path.c_str(), 0755);
    return path;
  }
  // Starts the worker and runs the loop until it has ended.
  std::optional<SliceEnd> run(const std::string& body,
                              const std::function<void(SliceProcess&)>& meanwhile = {}) {
    std::optional<SliceEnd> result;
    auto process = SliceProcess::start(
        loop_, program(body), [](const Json&) {},
        [&](SliceEnd end) {
          result = end;
          loop_.stop();
        });
    EXPECT_TRUE(process.ok()) << process.error().message;
    if (!process) return result;
    if (meanwhile) meanwhile(**process);
    const Timer limit(loop_, seconds(20), [&] { loop_.stop(); });
    loop_.run();
    return result;
  }

  char folder_[32] = "/tmp/xenspan-test.XXXXXX";
  EventLoop loop_;
};

TEST_F(SliceProcessTest, ExitStatusAndSignalAreTold) {
  const auto exited = run("exit 3");
  ASSERT_TRUE(exited);
  EXPECT_FALSE(exited->by_signal);
  EXPECT_EQ(exited->number, 3);
  EXPECT_FALSE(exited->wanted);
  const auto killed = run("kill -KILL $$");
  ASSERT_TRUE(killed);
  EXPECT_TRUE(killed->by_signal);
  EXPECT_EQ(killed->number, SIGKILL);
  EXPECT_EQ(slice_end_text(*killed), "its slice ended with signal 9");
}

TEST_F(SliceProcessTest, OneThatDoesNotStopIsKilled) {
  const auto end = run("sleep 60", [](SliceProcess& process) { process.stop("test"); });
  ASSERT_TRUE(end);
  EXPECT_TRUE(end->by_signal);
  EXPECT_TRUE(end->wanted);
}

TEST_F(SliceProcessTest, ItHasItsSocketAndNothingElseOfOurs) {
  const int leaked = dup(STDERR_FILENO);
  ASSERT_GE(leaked, 3);
  // The status is the number of open files among 4 to 40; 3 must be a socket.
  const auto end =
      run("[ \"$1\" = --control-fd ] && [ -S /dev/fd/3 ] || exit 99\n"
          "n=0; for i in 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -e /proc/$$/fd/$i ] && "
          "[ \"$(readlink /proc/$$/fd/$i)\" != \"$0\" ] && n=$((n+1)); done; exit $n");
  close(leaked);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->number, 0);
}

TEST_F(SliceProcessTest, AMissingProgramIsAnErrorNotAProcess) {
  const auto process = SliceProcess::start(
      loop_, "/no/such/worker", [](const Json&) {}, [](SliceEnd) {});
  ASSERT_FALSE(process.ok());
  EXPECT_NE(process.error().message.find("/no/such/worker"), std::string::npos);
}

TEST_F(SliceProcessTest, ADestroyedObjectLeavesNoProcess) {
  pid_t pid = 0;
  {
    auto process = SliceProcess::start(
        loop_, program("sleep 60"), [](const Json&) {}, [](SliceEnd) {});
    ASSERT_TRUE(process.ok());
    pid = (*process)->pid();
    EXPECT_EQ(kill(pid, 0), 0);
  }
  EXPECT_NE(kill(pid, 0), 0);
}

TEST(ProcessIds, AreMoreThanANumber) {
  const std::uint64_t start = cli::process_start_time(getpid());
  ASSERT_NE(start, 0u);
  EXPECT_TRUE(cli::is_alive({getpid(), start}));
  EXPECT_FALSE(cli::is_alive({getpid(), start + 1}));
  EXPECT_FALSE(cli::is_alive({getpid(), 0}));
  const pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  const cli::ProcessId id{child, cli::process_start_time(child)};
  // Another start time means another process: it must live on.
  cli::end_process({child, id.start_time + 1});
  EXPECT_TRUE(cli::is_alive(id));
  cli::end_process(id);
  EXPECT_FALSE(cli::is_alive(id));
  waitpid(child, nullptr, WNOHANG);
}

TEST(Programs, ErrorsCarryWhatTheyPrinted) {
  EXPECT_TRUE(cli::run_program({"true"}).ok());
  const Status failed = cli::run_program({"sh", "-c", "echo oops >&2; exit 1"});
  ASSERT_FALSE(failed.ok());
  EXPECT_NE(failed.error().message.find("oops"), std::string::npos);
  EXPECT_FALSE(cli::run_program({"/no/such/program"}).ok());
}

}  // namespace
}  // namespace xenspan::daemon
