// A genuine xenstored on this machine: started, stopped, killed, side by side, used by Xen's own
// tools.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <fstream>
#include <set>

#include "tests/unit/xenstore_fixture.h"
#include "xenstore-schema/records.h"
#include "xenstore-schema/xenstored_process.h"

namespace xenspan::xenstore {
namespace {

namespace fs = std::filesystem;

// Runs a shell command with XENSTORED_PATH set; its output, or "status N" when it fails.
std::string run_tool(const std::string& socket_path, const std::string& command) {
  const std::string line = "XENSTORED_PATH='" + socket_path + "' " + command + " 2>&1";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(line.c_str(), "r"),
                                                   [](FILE*) { return 0; });
  if (!pipe) return "popen failed";
  std::string output;
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe.get())) > 0;) output.append(buffer, n);
  const int status = pclose(pipe.get());
  return status == 0 ? output : "status " + std::to_string(status) + ": " + output;
}

bool is_readable(int fd, int milliseconds) {
  pollfd wait{fd, POLLIN, 0};
  return poll(&wait, 1, milliseconds) == 1;
}

class ProcessTest : public ::testing::Test {
 protected:
  XenstoredOptions options(const std::string& name) {
    XenstoredOptions options;
    options.run_dir = directory_.path() + "/" + name;
    return options;
  }
  std::unique_ptr<XenstoredProcess> start(const std::string& name) {
    auto process = XenstoredProcess::start(options(name));
    EXPECT_OK(process);
    return process.ok() ? std::move(*process) : nullptr;
  }
  std::unique_ptr<XenstoreStore> connect(const XenstoredProcess& process) {
    auto store = XenstoreStore::open(process.socket_path());
    EXPECT_OK(store);
    return store.ok() ? std::move(*store) : nullptr;
  }

  TemporaryDirectory directory_;
};

TEST_F(ProcessTest, StartsAnswersAndStops) {
  auto process = start("a");
  ASSERT_TRUE(process);
  const pid_t pid = process->pid();
  ASSERT_GT(pid, 0);
  auto store = connect(*process);
  ASSERT_TRUE(store);
  ASSERT_OK(store->write("/tool/x", "1"));
  EXPECT_FALSE(is_readable(process->exit_fd(), 0));
  store.reset();
  process->stop();
  EXPECT_EQ(process->pid(), 0);
  EXPECT_EQ(kill(pid, 0), -1);
  EXPECT_FALSE(fs::exists(directory_.path() + "/a/socket"));
  EXPECT_FALSE(fs::exists(directory_.path() + "/a/xenstored.pid"));
  process->stop();  // again is nothing
}

TEST_F(ProcessTest, WritesNowhereButItsDirectory) {
  const bool run_before = fs::exists("/run/xenstored");
  const bool lib_before = fs::exists("/var/lib/xenstored");
  auto process = start("a");
  ASSERT_TRUE(process);
  auto store = connect(*process);
  ASSERT_TRUE(store);
  ASSERT_OK(store->write("/tool/x", "1"));
  EXPECT_EQ(fs::exists("/run/xenstored"), run_before);
  EXPECT_EQ(fs::exists("/var/lib/xenstored"), lib_before);
  std::set<std::string> files;
  for (const auto& entry : fs::directory_iterator(directory_.path() + "/a"))
    files.insert(entry.path().filename());
  EXPECT_EQ(files, (std::set<std::string>{"socket", "xenstored.log", "xenstored.pid"}));
}

TEST_F(ProcessTest, TwoAreIndependent) {
  auto a = start("a");
  auto b = start("b");
  ASSERT_TRUE(a && b);
  auto store_a = connect(*a);
  auto store_b = connect(*b);
  ASSERT_TRUE(store_a && store_b);
  ASSERT_OK(store_a->write("/tool/xenspan/who", "a"));
  ASSERT_OK(store_b->write("/tool/xenspan/who", "b"));
  EXPECT_EQ(store_a->read("/tool/xenspan/who").value(), "a");
  EXPECT_EQ(store_b->read("/tool/xenspan/who").value(), "b");
  store_a.reset();
  a->stop();
  EXPECT_OK(store_b->write("/tool/xenspan/still", "there"));
}

TEST_F(ProcessTest, StartsAgainOverWhatAKilledOneLeft) {
  {
    auto process = start("a");
    ASSERT_TRUE(process);
    auto store = connect(*process);
    ASSERT_TRUE(store);
    ASSERT_OK(store->write("/tool/xenspan/old", "1"));
    ASSERT_EQ(kill(process->pid(), SIGKILL), 0);
    ASSERT_TRUE(is_readable(process->exit_fd(), 20000));
    // Its files are still there, and calls fail rather than hang.
    EXPECT_TRUE(fs::exists(process->socket_path()));
    const auto lost = store->read("/tool/xenspan/old");
    ASSERT_FALSE(lost);
    EXPECT_NE(lost.error().code, ENOENT);
    EXPECT_FALSE(XenstoreStore::open(process->socket_path()));
    // Put stale files back after the object has cleaned up, as a killed xenspand would leave them.
    const std::string socket = process->socket_path();
    fs::rename(socket, directory_.path() + "/kept");
    process.reset();
    fs::rename(directory_.path() + "/kept", socket);
    std::ofstream(directory_.path() + "/a/xenstored.pid") << getpid() << "\n";
  }
  auto again = start("a");
  ASSERT_TRUE(again);
  auto store = connect(*again);
  ASSERT_TRUE(store);
  EXPECT_EQ(store->read("/tool/xenspan/old").error().code, ENOENT);
  std::ifstream file(directory_.path() + "/a/xenstored.pid");
  pid_t pid = 0;
  file >> pid;
  EXPECT_EQ(pid, again->pid());
}

TEST_F(ProcessTest, LossIsSeenWithWatchesToo) {
  auto process = start("a");
  ASSERT_TRUE(process);
  auto store = connect(*process);
  ASSERT_TRUE(store);
  ASSERT_OK(store->watch("/tool/x", "t", [](const std::string&, const std::string&) {}));
  auto transaction = store->begin();
  ASSERT_OK(transaction);
  ASSERT_OK((*transaction)->write("/tool/x", "1"));
  ASSERT_EQ(kill(process->pid(), SIGKILL), 0);
  ASSERT_TRUE(is_readable(process->exit_fd(), 20000));
  EXPECT_FALSE((*transaction)->commit());
  const Status lost = store->write("/tool/x", "2");
  ASSERT_FALSE(lost);
  EXPECT_NE(lost.error().message.find("xenstored has ended"), std::string::npos)
      << lost.error().message;
  EXPECT_FALSE(store->begin());
  const Status events = store->process();
  ASSERT_FALSE(events);
  EXPECT_EQ(events.error().code, EBADF);
}

TEST_F(ProcessTest, DirectoryInUseIsRefusedAndLeftAlone) {
  auto process = start("a");
  ASSERT_TRUE(process);
  XenstoredOptions second = options("a");
  second.timeout = std::chrono::milliseconds(50);
  const auto refused = XenstoredProcess::start(second);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EBUSY);
  EXPECT_NE(refused.error().message.find(std::to_string(process->pid())), std::string::npos)
      << refused.error().message;
  auto store = connect(*process);
  ASSERT_TRUE(store);
  EXPECT_OK(store->write("/tool/x", "1"));
}

TEST_F(ProcessTest, EndsWithItsParentAndLeavesTheDirectoryUsable) {
  // Orphans come to this process, so that it can tell when xenstored has ended.
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const XenstoredOptions here = options("a");
  const pid_t parent = fork();
  ASSERT_GE(parent, 0);
  if (parent == 0) {
    auto process = XenstoredProcess::start(here);
    const pid_t pid = process.ok() ? (*process)->pid() : -1;
    [[maybe_unused]] const ssize_t written = write(ends[1], &pid, sizeof pid);
    for (;;) pause();
  }
  pid_t pid = -1;
  ASSERT_EQ(read(ends[0], &pid, sizeof pid), static_cast<ssize_t>(sizeof pid));
  ASSERT_GT(pid, 0);
  close(ends[0]);
  close(ends[1]);
  ASSERT_EQ(kill(parent, SIGKILL), 0);
  // No pause: the new one waits for the old one's end by itself.
  auto again = start("a");
  EXPECT_TRUE(again);
  if (!again) kill(pid, SIGTERM);  // it outlived its parent: end it, and fail below
  EXPECT_EQ(waitpid(parent, nullptr, 0), parent);
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST_F(ProcessTest, XensToolsWork) {
  auto process = start("a");
  ASSERT_TRUE(process);
  auto store = connect(*process);
  ASSERT_TRUE(store);
  HostRecord host;
  host.name = "a";
  host.address = "10.0.0.1";
  host.port = 7411;
  ASSERT_OK(write_host(*store, host));
  const std::string listing = run_tool(process->socket_path(), "xenstore-ls -f /tool/xenspan");
  EXPECT_NE(listing.find("/tool/xenspan/host/a/port = \"7411\"\n"), std::string::npos) << listing;
  EXPECT_NE(listing.find("/tool/xenspan/host/a/state = \"starting\"\n"), std::string::npos)
      << listing;

  // An admin's request reaches a watch.
  HostRequest request = HostRequest::kNone;
  ASSERT_OK(store->watch("/tool/xenspan/host", "t", [&](const std::string&, const std::string&) {
    const auto read = read_host(*store, "a");
    ASSERT_OK(read);
    request = read->request;
  }));
  EXPECT_EQ(run_tool(process->socket_path(), "xenstore-write /tool/xenspan/host/a/request drain"),
            "");
  while (request == HostRequest::kNone) {
    ASSERT_TRUE(is_readable(store->fd(), 20000));
    ASSERT_OK(store->process());
  }
  EXPECT_EQ(request, HostRequest::kDrain);
  EXPECT_EQ(run_tool(process->socket_path(), "xenstore-rm /tool/xenspan"), "");
  EXPECT_TRUE(list_hosts(*store).value().empty());
}

TEST_F(ProcessTest, StoreOpensLeaveTheEnvironmentAlone) {
  auto process = start("a");
  ASSERT_TRUE(process);
  ASSERT_EQ(setenv("XENSTORED_PATH", "/elsewhere", 1), 0);
  EXPECT_TRUE(connect(*process));
  EXPECT_STREQ(getenv("XENSTORED_PATH"), "/elsewhere");
  ASSERT_EQ(unsetenv("XENSTORED_PATH"), 0);
  EXPECT_TRUE(connect(*process));
  EXPECT_EQ(getenv("XENSTORED_PATH"), nullptr);
}

TEST_F(ProcessTest, ErrorsNameTheThing) {
  const auto none = XenstoreStore::open(directory_.path() + "/none");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ENOENT);
  EXPECT_NE(none.error().message.find(directory_.path() + "/none"), std::string::npos)
      << none.error().message;

  XenstoredOptions missing = options("a");
  missing.binary = "/nonexistent/xenstored";
  const auto no_binary = XenstoredProcess::start(missing);
  ASSERT_FALSE(no_binary);
  EXPECT_EQ(no_binary.error().code, ENOENT);
  EXPECT_NE(no_binary.error().message.find("/nonexistent/xenstored"), std::string::npos);

  XenstoredOptions library = options("a");
  library.library = "/nonexistent/noxen.so";
  const auto no_library = XenstoredProcess::start(library);
  ASSERT_FALSE(no_library);
  EXPECT_NE(no_library.error().message.find("/nonexistent/noxen.so"), std::string::npos);

  XenstoredOptions broken = options("a");
  broken.binary = "/bin/false";
  const auto ended = XenstoredProcess::start(broken);
  ASSERT_FALSE(ended);
  EXPECT_NE(ended.error().message.find("ended with status 1"), std::string::npos)
      << ended.error().message;

  XenstoredOptions deep = options(std::string(200, 'd'));
  EXPECT_EQ(XenstoredProcess::start(deep).error().code, ENAMETOOLONG);
  XenstoredOptions relative;
  relative.run_dir = "here";
  EXPECT_EQ(XenstoredProcess::start(relative).error().code, EINVAL);
  // None of these keeps the directory.
  EXPECT_TRUE(start("a"));
}

}  // namespace
}  // namespace xenspan::xenstore
