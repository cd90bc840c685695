// The home's role moves: real slices of one domain on this machine, ordered as the daemon does
// (dom0-daemon/slice/control.md), with a program that uses all that the home keeps.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace xenspan {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;
namespace fs = std::filesystem;

constexpr std::chrono::seconds kLimit{60};
constexpr std::size_t kMaxPacket = 1 << 20;

fs::path build_folder() { return fs::canonical("/proc/self/exe").parent_path() / "../.."; }

void send_packet(int socket, const json& body, const std::vector<int>& descriptors) {
  const std::string text = body.dump();
  iovec piece{const_cast<char*>(text.data()), text.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char beside[CMSG_SPACE(16 * sizeof(int))] = {};
  if (!descriptors.empty()) {
    message.msg_control = beside;
    message.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
    cmsghdr* item = CMSG_FIRSTHDR(&message);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
    memcpy(CMSG_DATA(item), descriptors.data(), descriptors.size() * sizeof(int));
  }
  ASSERT_EQ(::sendmsg(socket, &message, MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
}

// One worker process and its control socket.
class SliceWorker {
 public:
  SliceWorker() {
    int pair[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    socket_.reset(pair[0]);
    const UniqueFd other(pair[1]);
    const int bytes = 4 << 20;
    for (const int end : pair) ::setsockopt(end, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
    const std::string program = build_folder() / "dom0-daemon/slice/xenspan-slice";
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(other.get(), 3);
      ::close_range(4, ~0U, 0);
      ::execl(program.c_str(), program.c_str(), "--control-fd", "3", nullptr);
      ::_exit(127);
    }
  }
  ~SliceWorker() { end(); }

  pid_t pid() const { return pid_; }
  void send(const json& body, const std::vector<int>& descriptors = {}) {
    send_packet(socket_.get(), body, descriptors);
  }
  // The next event of this kind; the others stay for later, but for what comes by itself.
  json wait(const std::string& kind, const std::function<bool(const json&)>& right = {}) {
    const auto fits = [&](const json& event) {
      return event.value("event", "") == kind && (!right || right(event));
    };
    const auto until = steady_clock::now() + kLimit;
    for (;;) {
      for (auto event = events_.begin(); event != events_.end(); ++event) {
        if (!fits(*event)) continue;
        json found = std::move(*event);
        events_.erase(event);
        return found;
      }
      if (!receive(until)) {
        ADD_FAILURE() << "no `" << kind << "` came, but " << json(events_).dump();
        return json::object();
      }
    }
  }
  json done(std::uint64_t id) {
    return wait("done", [id](const json& event) { return event.value("id", 0U) == id; });
  }
  void end() {
    if (pid_ <= 0) return;
    socket_.reset();  // it ends when the daemon has gone
    for (int tries = 0; tries < 200 && ::waitpid(pid_, nullptr, WNOHANG) == 0; ++tries)
      ::usleep(10'000);
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  bool receive(steady_clock::time_point until) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - steady_clock::now()).count();
    pollfd ready{socket_.get(), POLLIN, 0};
    if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) <= 0) return false;
    std::string text(kMaxPacket, '\0');
    const ssize_t got = ::recv(socket_.get(), text.data(), text.size(), 0);
    if (got <= 0) return false;
    json event = json::parse(text.begin(), text.begin() + got, nullptr, false);
    if (event.value("event", "") != "counters") events_.push_back(std::move(event));
    return true;
  }

  UniqueFd socket_;
  pid_t pid_ = 0;
  std::deque<json> events_;
};

class SliceRoleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "slices are started by root";
    char name[] = "/tmp/slice_role_XXXXXX";
    folder_ = ::mkdtemp(name);
    fs::create_directory(folder_ + "/work");
    cpu_set_t mine;
    ::sched_getaffinity(0, sizeof mine, &mine);
    for (int core = 0; core < CPU_SETSIZE; ++core)
      if (CPU_ISSET(core, &mine)) cores_.push_back(core);
  }
  void TearDown() override {
    slices_.clear();
    if (!folder_.empty()) fs::remove_all(folder_);
  }

  SliceWorker& slice(unsigned host) { return *slices_.at(host); }
  int core(unsigned host) const { return cores_[host % cores_.size()]; }
  std::string work() const { return folder_ + "/work"; }

  json create(unsigned self) {
    json hosts = json::array();
    for (std::size_t host = 0; host < names_.size(); ++host)
      hosts.push_back({{"name", slices_.at(host) != nullptr ? names_[host] : ""},
                       {"address", "127.0.0.1"},
                       {"incarnation", incarnations_[host]}});
    json vcpus = json::array();
    for (const unsigned host : vcpus_) vcpus.push_back({{"host", host}, {"core", core(host)}});
    const unsigned user = self < 2 ? 0 : user_;
    const std::string directory = folder_ + "/run-" + names_[self];
    fs::create_directory(directory);
    return {{"op", "create"},
            {"uuid", "c0ffee00-0000-4000-8000-000000000000"},
            {"name", "role"},
            {"self", self},
            {"hosts", hosts},
            {"vcpus", vcpus},
            {"memory", 256 << 20},
            {"secret", std::string(64, '5')},
            {"bind", "127.0.0.1"},
            {"user", {{"uid", user}, {"gid", user}, {"name", "someone"}}},
            {"rundir", directory},
            {"home", home_},
            {"engine_home", engine_home_},
            {"transport", "tcp"}};
  }
  json with_program(json order, const std::vector<std::string>& argv) {
    order["program"] = argv.front();
    order["argv"] = argv;
    order["env"] = {"PATH=/usr/bin:/bin", "LD_BIND_NOW=1"};
    // The home's state then takes more than one part.
    for (int i = 0; i < 6; ++i)
      order["env"].push_back("MUCH" + std::to_string(i) + "=" + std::string(100'000, 'x'));
    order["cwd"] = work();
    order["umask"] = 027;
    order["fds"] = {0, 1, 2};
    return order;
  }
  void add_name(const std::string& name) {
    names_.push_back(name);
    slices_.push_back(std::make_unique<SliceWorker>());
    ports_.push_back(0);
    incarnations_.push_back(0);
  }
  void listen(unsigned host, const json& order, const std::vector<int>& descriptors = {}) {
    slice(host).send(order, descriptors);
    ports_[host] = slice(host).wait("listening").value("port", 0);
    ASSERT_NE(ports_[host], 0);
  }

  // A domain on hosts a, b; the program's output goes to work()/out unless another is given.
  void start(const std::vector<std::string>& argv, int output = -1) {
    for (const char* name : {"a", "b"}) add_name(name);
    const UniqueFd in(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    const UniqueFd out(
        ::open((work() + "/out").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    ASSERT_TRUE(in && out);
    listen(0, with_program(create(0), argv),
           {in.get(), output >= 0 ? output : out.get(), out.get()});
    listen(1, create(1));
    for (const unsigned host : {0U, 1U}) slice(host).send({{"op", "peers"}, {"ports", ports_}});
    for (const unsigned host : {0U, 1U}) slice(host).wait("ready");
    slice(0).send({{"op", "start"}});
    slice(0).wait("running");
  }
  void start_users(int output = -1) {
    // Where everybody may read it.
    const std::string program = folder_ + "/home_users";
    fs::copy_file(build_folder() / "tests/host/guests/home_users", program);
    start({program, "until", work() + "/stop"}, output);
    await_file("home_users.ready");
  }
  void await_file(const std::string& name) {
    const auto until = steady_clock::now() + kLimit;
    while (!fs::exists(work() + "/" + name)) {
      ASSERT_LT(steady_clock::now(), until) << name << " is not there: " << output();
      ::usleep(10'000);
    }
  }
  std::string output() {
    std::ifstream in(work() + "/out");
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void end_program(unsigned home) {
    std::ofstream(work() + "/stop").put('x');
    const json exited = slice(home).wait("exited");
    EXPECT_EQ(exited.value("status", -1), 0) << exited.dump() << output();
    EXPECT_EQ(output(), "ok home_users\n");
    std::ifstream map(work() + "/home_users.map", std::ios::binary);
    long numbers[2] = {};
    map.read(reinterpret_cast<char*>(numbers), sizeof numbers);
    EXPECT_GT(numbers[0], 0);
    EXPECT_EQ(numbers[1], 4711);
  }

  // One order to one slice: its answer.
  json order(unsigned host, json body) {
    const std::uint64_t id = ++last_id_;
    body["id"] = id;
    slice(host).send(body);
    return slice(host).done(id);
  }
  void carry_out(unsigned host, const json& body) {
    const json answer = order(host, body);
    ASSERT_FALSE(answer.contains("error")) << body.dump() << ": " << answer.dump();
  }
  std::string error(unsigned host, const json& body) {
    return order(host, body).value("error", "");
  }
  std::vector<unsigned> members(int without = -1) const {
    std::vector<unsigned> all;
    for (unsigned host = 0; host < slices_.size(); ++host)
      if (slices_[host] != nullptr && static_cast<int>(host) != without) all.push_back(host);
    return all;
  }

  // Another host joins, as domain_members.cc does it; one that was there gets its number again.
  void add(const std::string& name, bool heir) {
    const auto others = members();
    const auto before = std::find(names_.begin(), names_.end(), name);
    const auto host = static_cast<unsigned>(before - names_.begin());
    if (before == names_.end()) {
      add_name(name);
    } else {
      slices_[host] = std::make_unique<SliceWorker>();
      ++incarnations_[host];
    }
    json joins = create(host);
    joins["first_hosts"] = 2;
    joins["cores"] = cores_;
    joins["heir"] = heir;
    listen(host, joins);
    slice(host).send({{"op", "peers"}, {"ports", ports_}});
    for (const unsigned each : others)
      carry_out(each, {{"op", "add-peer"},
                       {"host", host},
                       {"name", name},
                       {"address", "127.0.0.1"},
                       {"port", ports_[host]},
                       {"incarnation", incarnations_[host]}});
    slice(host).wait("ready");
    for (const unsigned each : others) carry_out(each, {{"op", "admit-peer"}, {"host", host}});
    const json slots = order(home_, {{"op", "slots"}});
    carry_out(host, {{"op", "learn-slots"}, {"slots", slots.value("slots", "")}});
    carry_out(host, {{"op", "take-slots"}, {"live", members()}});
  }
  void migrate(unsigned vcpu, unsigned host) {
    slice(home_).send({{"op", "migrate"},
                       {"id", ++last_id_},
                       {"vcpu", vcpu},
                       {"host", host},
                       {"core", core(host)}});
    const json moved = slice(home_).wait("migrated");
    ASSERT_FALSE(moved.contains("error")) << moved.dump();
    vcpus_[vcpu] = host;
  }
  void vacate(unsigned host, unsigned to) {
    for (unsigned vcpu = 0; vcpu < vcpus_.size(); ++vcpu)
      if (vcpus_[vcpu] == host) migrate(vcpu, to);
    const auto until = steady_clock::now() + kLimit;
    while (order(home_, {{"op", "vacate"}, {"host", host}}).value("threads", 1U) != 0)
      ASSERT_LT(steady_clock::now(), until);
  }
  void to_all(const json& body, int without = -1) {
    for (const unsigned host : members(without)) carry_out(host, body);
  }
  // All slices get it at once, again and again until no call is under way.
  void hold() {
    const auto until = steady_clock::now() + kLimit;
    for (bool quiet = false; !quiet;) {
      std::map<unsigned, std::uint64_t> asked;
      for (const unsigned host : members()) {
        slice(host).send({{"op", "hold"}, {"id", ++last_id_}});
        asked[host] = last_id_;
      }
      quiet = true;
      for (const auto& [host, id] : asked) {
        const json answer = slice(host).done(id);
        quiet = quiet && answer.value("calls", 1U) == 0;
        ASSERT_LT(steady_clock::now(), until) << answer.dump();
      }
    }
  }
  void move_home(unsigned to) {
    const unsigned from = home_;
    hold();
    carry_out(from, {{"op", "give-home"}, {"to", to}});
    to_all({{"op", "home"}, {"host", to}}, static_cast<int>(to));
    carry_out(to, {{"op", "home"}, {"host", to}});
    home_ = to;
    to_all({{"op", "release"}});
  }
  void leave(unsigned host) {
    const int gone = static_cast<int>(host);
    const auto heirs = members(gone);
    carry_out(host, {{"op", "drain"}, {"heirs", heirs}});
    const auto settle = [&] {
      const std::string slots = order(host, {{"op", "slots"}}).value("slots", "");
      to_all({{"op", "settle"}, {"slots", slots}}, gone);
    };
    if (engine_home_ == gone) {
      to_all({{"op", "forget-home"}}, gone);
      settle();
      carry_out(host, {{"op", "forget-home"}});
      carry_out(host, {{"op", "drain"}, {"heirs", heirs}});
      engine_home_ = -1;
    }
    settle();
    to_all({{"op", "remove-peer"}, {"host", host}}, gone);
    slice(host).send({{"op", "stop"}, {"cause", "the host leaves"}});
    slices_[host].reset();
  }

  std::string folder_;
  std::vector<int> cores_;
  std::vector<std::string> names_;
  std::vector<std::unique_ptr<SliceWorker>> slices_;
  std::vector<int> ports_;
  std::vector<unsigned> incarnations_;
  std::vector<unsigned> vcpus_{0, 1, 1, 0};
  unsigned home_ = 0;
  int engine_home_ = 0;
  unsigned user_ = 0;  // of hosts that join
  std::uint64_t last_id_ = 0;
};

TEST_F(SliceRoleTest, TheProgramGoesOnAndTheOldHomeLeaves) {
  start_users();
  add("c", true);
  vacate(0, 2);
  move_home(2);
  leave(0);
  ::usleep(200'000);
  end_program(2);
}

TEST_F(SliceRoleTest, OneHomeAfterTheOther) {
  start_users();
  for (unsigned next = 2; next < 6; ++next) {
    add(std::string(1, static_cast<char>('a' + next)), true);
    vacate(home_, next);
    const unsigned before = home_;
    move_home(next);
    leave(before);
  }
  end_program(5);
}

TEST_F(SliceRoleTest, TheFirstHomeComesBack) {
  start_users();
  unsigned before = 0;
  for (const unsigned next : {2U, 0U, 2U}) {
    add(std::string(1, static_cast<char>('a' + next)), true);
    vacate(before, next);
    move_home(next);
    leave(before);
    before = next;
  }
  end_program(2);
}

TEST_F(SliceRoleTest, TheOldHomeMayRunThreadsAgain) {
  start_users();
  add("c", true);
  vacate(0, 2);
  move_home(2);
  migrate(0, 0);
  migrate(3, 0);
  ::usleep(200'000);
  EXPECT_NE(error(0, {{"op", "give-home"}, {"to", 1}}), "") << "it is not the home any more";
  vacate(0, 1);
  leave(0);
  end_program(2);
}

// It may be that nothing comes of it: every thread goes on with what it did.
TEST_F(SliceRoleTest, AHoldThatIsGivenUpIsNotSeen) {
  start_users();
  for (int i = 0; i < 20; ++i) {
    hold();
    to_all({{"op", "release"}});
    ::usleep(10'000);
  }
  end_program(0);
}

TEST_F(SliceRoleTest, WhatIsBoundToTheHomeIsNamedAndNothingHasChanged) {
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  const UniqueFd reads(pipe[0]);
  UniqueFd writes(pipe[1]);
  start_users(writes.get());
  writes.reset();
  add("c", true);
  vacate(0, 2);
  hold();
  const std::string why = error(0, {{"op", "give-home"}, {"to", 2}});
  EXPECT_EQ(why, "the program has open what is bound to host a: 1 pipe");
  to_all({{"op", "release"}});
  std::ofstream(work() + "/stop").put('x');
  EXPECT_EQ(slice(0).wait("exited").value("status", -1), 0) << output();
  char text[64] = {};
  EXPECT_EQ(::read(reads.get(), text, sizeof text - 1), 14);
  EXPECT_STREQ(text, "ok home_users\n");
}

// The next home is another user, who has no right to the files at first.
TEST_F(SliceRoleTest, AFileThatCannotBeOpenedThereIsNamedAndTheNextTrySucceeds) {
  constexpr unsigned kNobody = 65534;
  user_ = kNobody;
  fs::permissions(folder_, fs::perms(0755));
  start_users();
  add("c", true);
  vacate(0, 2);
  hold();
  const json give{{"op", "give-home"}, {"to", 2}};
  const std::string why = error(0, give);
  EXPECT_NE(why.find("host c cannot become the home: "), std::string::npos) << why;
  EXPECT_NE(why.find("cannot be opened: Permission denied"), std::string::npos) << why;
  EXPECT_NE(why.find(work() + "/"), std::string::npos) << why;
  EXPECT_NE(error(2, {{"op", "home"}, {"host", 2}}), "") << "it has not been given";
  to_all({{"op", "release"}});
  ::usleep(100'000);  // it goes on at the old home

  fs::permissions(work(), fs::perms(0777));
  for (const auto& file : fs::directory_iterator(work()))
    fs::permissions(file, fs::perms::others_read | fs::perms::others_write, fs::perm_options::add);
  move_home(2);
  leave(0);
  end_program(2);
}

TEST_F(SliceRoleTest, OrdersThatDoNotFitChangeNothing) {
  start_users();
  add("c", true);
  const json give{{"op", "give-home"}, {"to", 2}};
  EXPECT_NE(error(0, give).find("vCPU 0 is placed on the home"), std::string::npos);
  vacate(0, 2);
  EXPECT_EQ(error(0, give), "calls at the home are not held");
  EXPECT_EQ(error(1, {{"op", "home"}, {"host", 2}}), "calls at the home are not held");
  hold();
  EXPECT_EQ(error(1, give), "this slice is not the home");
  EXPECT_NE(error(0, {{"op", "give-home"}, {"to", 0}}), "");
  EXPECT_NE(error(0, {{"op", "give-home"}, {"to", 3}}), "");
  EXPECT_NE(error(0, {{"op", "give-home"}, {"to", 99}}), "");
  EXPECT_NE(error(0, {{"op", "give-home"}, {"to", 1}}).find("did not join for that"),
            std::string::npos);
  for (const unsigned host : members()) {
    EXPECT_EQ(error(host, {{"op", "home"}, {"host", 0}}), "host a is the home");
    EXPECT_EQ(error(host, {{"op", "home"}, {"host", 7}}), "host number 7 is nobody's");
    EXPECT_NE(error(host, {{"op", "home"}}), "");
  }
  EXPECT_NE(error(0, {{"op", "home"}, {"host", 2}}), "");
  EXPECT_NE(error(2, {{"op", "home"}, {"host", 2}}), "");
  to_all({{"op", "release"}});
  end_program(0);
}

// Its end does not wait for anybody who holds its calls.
TEST_F(SliceRoleTest, ASignalEndsAProgramThatIsHeld) {
  start_users();
  hold();
  slice(0).send({{"op", "signal"}, {"signo", SIGKILL}});
  EXPECT_EQ(slice(0).wait("exited").value("status", -1), 128 + SIGKILL);
}

}  // namespace
}  // namespace xenspan
