#include "dom0-daemon/hypervisor/usermode/proc_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "dom0-daemon/hypervisor/usermode/machine_tree.h"

namespace xenspan::hypervisor::usermode {
namespace {

namespace fs = std::filesystem;
using Answer = ProcFiles::Answer;
using testing::HasSubstr;

std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << stream.rdbuf();
  return bytes.str();
}

unsigned lines_starting(const std::string& text, const std::string& start) {
  std::istringstream stream(text);
  unsigned count = 0;
  for (std::string line; std::getline(stream, line);) count += line.starts_with(start);
  return count;
}

class ProcFilesTest : public testing::Test {
 protected:
  static constexpr int kPid = 4242;
  ProcFilesTest() {
    char name[] = "/tmp/xenspan-proc-XXXXXX";
    directory_ = mkdtemp(name);
    make(6);
  }
  ~ProcFilesTest() override { fs::remove_all(directory_); }

  void make(unsigned vcpus, int pid = kPid) {
    ProcFiles::Sources sources;
    sources.vcpus = vcpus;
    sources.memory = std::uint64_t{3} << 30;
    sources.program = "/bin/sh";
    sources.arguments = {"sh", "-c", "two words"};
    sources.environment = {"A=b", "C="};
    sources.pid = pid;
    sources.directory = directory_;
    sources.maps = [this] { return maps_; };
    sources.threads = [this] { return threads_; };
    files_ = std::make_unique<ProcFiles>(std::move(sources));
  }
  Answer answer(const std::string& path) {
    const auto found = files_->resolve(path);
    EXPECT_TRUE(found.has_value()) << path;
    return found.value_or(Answer{Answer::kContents, ""});
  }
  // What a reader of the path gets.
  std::string contents(const std::string& path) {
    const Answer found = answer(path);
    return found.kind == Answer::kContents ? found.text : read_file(found.text);
  }

  std::string directory_;
  std::string maps_ =
      "00400000-00500000 r-xp 00000000 00:00 0 /bin/sh\n"
      "8000000000-8000100000 rw-p 00000000 00:00 0 \n"
      "fffff00000-10000000000 rw-p 00000000 00:00 0    [stack]\n";
  std::vector<int> threads_ = {kPid, 4243, 4250};
  std::unique_ptr<ProcFiles> files_;
};

TEST(MachineTree, ListsAndMapsAreTheKernels) {
  EXPECT_EQ(cpu_list(1), "0");
  EXPECT_EQ(cpu_list(12), "0-11");
  EXPECT_EQ(cpu_map(1), "1");
  EXPECT_EQ(cpu_map(6), "3f");
  EXPECT_EQ(cpu_map(32), "ffffffff");
  EXPECT_EQ(cpu_map(40), "ff,ffffffff");
  EXPECT_EQ(cpu_map_of(3, 6), "08");
  EXPECT_EQ(cpu_map_of(35, 64), "00000008,00000000");
}

TEST_F(ProcFilesTest, CpuDirectoryHasTheDomainsProcessors) {
  const std::string cpus = "/sys/devices/system/cpu";
  EXPECT_EQ(contents(cpus + "/online"), "0-5\n");
  EXPECT_EQ(contents(cpus + "/possible"), "0-5\n");
  EXPECT_EQ(contents(cpus + "/present"), "0-5\n");
  EXPECT_EQ(contents(cpus + "/offline"), "\n");
  EXPECT_EQ(contents(cpus + "/cpu5/topology/core_id"), "5\n");
  EXPECT_EQ(contents(cpus + "/cpu5/topology/thread_siblings_list"), "5\n");
  EXPECT_EQ(contents(cpus + "/cpu5/topology/core_siblings"), "3f\n");
  EXPECT_EQ(contents(cpus + "/cpu5/online"), "1\n");
  EXPECT_FALSE(fs::exists(answer(cpus + "/cpu6").text));
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(answer(cpus).text)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("cpu")) names.insert(name);
  }
  EXPECT_EQ(names, (std::set<std::string>{"cpu0", "cpu1", "cpu2", "cpu3", "cpu4", "cpu5"}));
}

TEST_F(ProcFilesTest, CachesAreTheHostsSharedAsTheDomainSharesThem) {
  const std::string host = "/sys/devices/system/cpu/cpu0/cache/";
  if (!fs::exists(host + "index0/level")) GTEST_SKIP() << "this host tells nothing about caches";
  for (int i = 0; fs::exists(host + "index" + std::to_string(i)); ++i) {
    const std::string cache = "cache/index" + std::to_string(i);
    const std::string guest = "/sys/devices/system/cpu/cpu3/" + cache;
    EXPECT_EQ(contents(guest + "/size"),
              read_file("/sys/devices/system/cpu/cpu0/" + cache + "/size"));
    const bool common = contents(guest + "/level") == "3\n";
    EXPECT_EQ(contents(guest + "/shared_cpu_list"), common ? "0-5\n" : "3\n");
    EXPECT_EQ(contents(guest + "/shared_cpu_map"), common ? "3f\n" : "08\n");
  }
}

TEST_F(ProcFilesTest, OneMemoryNode) {
  const std::string nodes = "/sys/devices/system/node";
  EXPECT_EQ(contents(nodes + "/online"), "0\n");
  EXPECT_EQ(contents(nodes + "/node0/cpulist"), "0-5\n");
  EXPECT_EQ(contents(nodes + "/node0/distance"), "10\n");
  EXPECT_THAT(contents(nodes + "/node0/meminfo"), HasSubstr("MemTotal:        3145728 kB"));
  EXPECT_TRUE(fs::exists(answer(nodes + "/node0/cpu5/topology/core_id").text));
}

// A program that reads all of this.
TEST_F(ProcFilesTest, LscpuCountsTheDomainsProcessors) {
  if (access("/usr/bin/lscpu", X_OK) != 0) GTEST_SKIP() << "no lscpu here";
  fs::create_directories(directory_ + "/proc");
  std::ofstream(directory_ + "/proc/cpuinfo") << contents("/proc/cpuinfo");
  FILE* pipe =
      popen(("LC_ALL=C lscpu --sysroot " + directory_ + " -p=CPU,CORE,SOCKET,NODE").c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string output;
  char buffer[512];
  while (fgets(buffer, sizeof buffer, pipe) != nullptr) {
    if (buffer[0] != '#') output += buffer;
  }
  EXPECT_EQ(pclose(pipe), 0);
  EXPECT_EQ(output, "0,0,0,0\n1,1,0,0\n2,2,0,0\n3,3,0,0\n4,4,0,0\n5,5,0,0\n");
}

TEST_F(ProcFilesTest, CpuinfoRepeatsTheFirstProcessor) {
  const std::string text = contents("/proc/cpuinfo");
  EXPECT_EQ(lines_starting(text, "processor"), 6u);
  EXPECT_THAT(text, HasSubstr("processor\t: 5\n"));
  EXPECT_EQ(lines_starting(text, "model name"),
            lines_starting(read_file("/proc/cpuinfo"), "model name") > 0 ? 6u : 0u);
  EXPECT_THAT(text, HasSubstr("siblings\t: 6\n"));
  EXPECT_TRUE(text.ends_with("\n\n"));
}

TEST_F(ProcFilesTest, StatHasALineForEachProcessorAndTheirSum) {
  for (const unsigned vcpus : {1u, 6u}) {
    make(vcpus);
    const std::string text = contents("/proc/stat");
    EXPECT_EQ(lines_starting(text, "cpu"), vcpus + 1);
    EXPECT_EQ(lines_starting(text, "btime "), 1u);
    std::istringstream stream(text);
    std::string name;
    std::uint64_t total = 0, sum = 0, user = 0;
    stream >> name >> total;
    EXPECT_EQ(name, "cpu");
    for (std::string line; std::getline(stream, line);) {
      if (std::sscanf(line.c_str(), "cpu%*u %lu", &user) == 1) sum += user;
    }
    EXPECT_EQ(sum, total);
  }
}

TEST_F(ProcFilesTest, MeminfoIsTheDomains) {
  const std::string text = contents("/proc/meminfo");
  EXPECT_THAT(text, HasSubstr("MemTotal:        3145728 kB\n"));
  EXPECT_THAT(text,
              HasSubstr("MemFree:         3143680 kB\n"));  // less 1 MiB of data, 1 MiB of stack
  EXPECT_THAT(text, HasSubstr("MemAvailable:"));
}

TEST_F(ProcFilesTest, ProcessFilesAreTheGuests) {
  for (const std::string base : {"/proc/self", "/proc/4242", "/proc/thread-self"}) {
    EXPECT_EQ(contents(base + "/maps"), maps_);
    EXPECT_EQ(contents(base + "/cmdline"), (std::string("sh\0-c\0two words\0", 16)));
    EXPECT_EQ(contents(base + "/environ"), (std::string("A=b\0C=\0", 7)));
    EXPECT_EQ(contents(base + "/comm"), "sh\n");
    const Answer exe = answer(base + "/exe");
    EXPECT_EQ(exe.kind, Answer::kLink);
    EXPECT_EQ(exe.text, fs::canonical("/bin/sh").string());
    EXPECT_THAT(contents(base + "/statm"), testing::StartsWith("768 "));
  }
}

TEST_F(ProcFilesTest, StatusAndStatHaveTheGuestsNumbers) {
  const std::string status = contents("/proc/self/status");
  for (const char* line :
       {"Name:\tsh\n", "Tgid:\t4242\n", "Pid:\t4242\n", "Threads:\t3\n", "Cpus_allowed:\t3f\n",
        "Cpus_allowed_list:\t0-5\n", "VmSize:\t    3072 kB\n", "VmStk:\t    1024 kB\n"}) {
    EXPECT_THAT(status, HasSubstr(line));
  }
  EXPECT_EQ(lines_starting(status, ""), lines_starting(read_file("/proc/self/status"), ""));
  const std::string stat = contents("/proc/self/stat");
  EXPECT_TRUE(stat.starts_with("4242 (sh) "));
  std::istringstream fields(stat);
  std::vector<std::string> list;
  for (std::string field; fields >> field;) list.push_back(field);
  ASSERT_GE(list.size(), 52u);
  EXPECT_EQ(list[19], "3");
  EXPECT_EQ(list[22], std::to_string(3 << 20));
  EXPECT_THAT(contents("/proc/self/task/4250/stat"), testing::StartsWith("4250 (sh) "));
  EXPECT_THAT(contents("/proc/4250/status"), HasSubstr("Tgid:\t4242\nNgid:\t0\nPid:\t4250\n"));
}

TEST_F(ProcFilesTest, TaskDirectoryFollowsTheThreads) {
  const auto names = [this] {
    std::set<std::string> list;
    for (const auto& entry : fs::directory_iterator(answer("/proc/self/task").text)) {
      list.insert(entry.path().filename());
    }
    return list;
  };
  EXPECT_EQ(names(), (std::set<std::string>{"4242", "4243", "4250"}));
  threads_ = {kPid, 4251};
  EXPECT_EQ(names(), (std::set<std::string>{"4242", "4251"}));
  EXPECT_FALSE(fs::exists(answer("/proc/self/task/4243").text));
  EXPECT_FALSE(fs::exists(answer("/proc/self/task/4243/stat").text));
  EXPECT_EQ(contents("/proc/self/task/4251/comm"), "sh\n");
}

TEST_F(ProcFilesTest, LeavesTheRestToTheHome) {
  for (const char* path :
       {"/proc/self", "/proc/self/mounts", "/proc/self/mountinfo", "/proc/self/limits",
        "/proc/self/cgroup", "/proc/version", "/proc/sys/kernel/pid_max", "/proc/loadavg", "/proc",
        "/sys/fs/cgroup/cpu.max", "/sys/devices/system/cpufoo", "/etc/passwd", "/proc/1/maps",
        "/proc/stat/x", "/proc/self/auxv", ""}) {
    EXPECT_FALSE(files_->resolve(path).has_value()) << path;
  }
  EXPECT_EQ(answer("/proc/self/fd/3").text, "/proc/self/fd/3");
  EXPECT_EQ(answer("/proc/4242/fd").text, "/proc/self/fd");
  EXPECT_EQ(answer("/proc/4242/limits").text, "/proc/self/limits")
      << "the guest's pid is not the home's";
  make(2, getpid());
  EXPECT_FALSE(files_->resolve("/proc/" + std::to_string(getpid()) + "/limits").has_value());
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
