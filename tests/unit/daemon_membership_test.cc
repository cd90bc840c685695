// Membership: every request in every state, in every order; what fails; what is withdrawn; and
// which vCPUs move.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "base/unique_fd.h"
#include "dom0-daemon/daemon/bound_files.h"
#include "dom0-daemon/daemon/member_shares.h"
#include "dom0-daemon/daemon/membership.h"

namespace xenspan::daemon {
namespace {

using Step = Membership::Step;
using State = Membership::State;

class MembershipTest : public testing::Test {
 protected:
  MembershipTest() {
    members_.open([this](const std::string& host) -> Status {
      return host == down_ ? Status(Error{EHOSTDOWN, "host " + host + " is down"}) : Status();
    });
  }
  // Writes a request and gives its answer: "ok", the refusal, or "waits".
  std::string ask(const std::string& host, const std::string& word) {
    members_.ask(host, word);
    return last_answer();
  }
  std::string last_answer() {
    const auto answers = members_.take_answers();
    if (answers.empty()) return "waits";
    return answers.back().status ? "ok" : answers.back().status.error().message;
  }
  State state(const std::string& host) const { return members_.members().at(host).state; }
  std::string error(const std::string& host) const { return members_.members().at(host).error; }
  bool is_member(const std::string& host) const { return members_.members().contains(host); }
  void run_to(Step step) {
    for (int i = 0; i < 10 && members_.step() != step; ++i) members_.done();
    EXPECT_EQ(members_.step(), step);
  }

  std::string down_ = "d";
  Membership members_{"dom", "a", {"a", "b"}};
};

void expect_word(const std::string& text, const std::string& word) {
  EXPECT_NE(text.find(word), std::string::npos) << text;
}

TEST_F(MembershipTest, AHostIsAdded) {
  EXPECT_EQ(ask("c", "add"), "ok");
  EXPECT_EQ(state("c"), State::kJoining);
  EXPECT_EQ(members_.host(), "c");
  for (const Step step : {Step::kStart, Step::kConnect}) {
    EXPECT_EQ(members_.step(), step);
    EXPECT_EQ(state("c"), State::kJoining);
    members_.done();
  }
  EXPECT_EQ(state("c"), State::kActive);
  EXPECT_EQ(members_.step(), Step::kShare);
  members_.done();
  EXPECT_EQ(members_.step(), Step::kNone);
  EXPECT_FALSE(members_.busy("c"));
}

TEST_F(MembershipTest, AHostIsDrainedAndComesBack) {
  EXPECT_EQ(ask("b", "drain"), "ok");
  for (const Step step : {Step::kVacate, Step::kHandOver, Step::kDisconnect, Step::kStop}) {
    EXPECT_EQ(members_.step(), step);
    EXPECT_EQ(state("b"), State::kDraining);
    members_.done();
  }
  EXPECT_EQ(state("b"), State::kLeft);
  EXPECT_EQ(members_.step(), Step::kNone);
  EXPECT_EQ(ask("b", "add"), "ok");
  run_to(Step::kNone);
  EXPECT_EQ(state("b"), State::kActive);
}

TEST_F(MembershipTest, RemoveDrainsAndForgets) {
  EXPECT_EQ(ask("b", "remove"), "ok");
  EXPECT_EQ(state("b"), State::kDraining);
  run_to(Step::kNone);
  EXPECT_FALSE(is_member("b"));
  EXPECT_EQ(members_.take_forgotten(), std::vector<std::string>{"b"});
  EXPECT_TRUE(members_.take_forgotten().empty());
}

TEST_F(MembershipTest, RemoveTakesWhatHasLeftOffTheList) {
  ask("b", "drain");
  run_to(Step::kNone);
  EXPECT_EQ(ask("b", "remove"), "ok");
  EXPECT_FALSE(is_member("b"));
  EXPECT_EQ(members_.step(), Step::kNone);
}

TEST_F(MembershipTest, RefusalsChangeNothingAndSayWhy) {
  const struct {
    const char *host, *word, *why;
  } cases[] = {{"b", "add", "host b is a member of domain dom already"},
               {"a", "add", "already"},
               {"d", "add", "host d is down"},
               {"a", "drain", "host a is the home of domain dom, and it cannot move"},
               {"a", "remove", "host a is the home"},
               {"c", "drain", "host c is not a member"},
               {"c", "remove", "host c is not a member"},
               {"b", "join", "add, drain or remove"},
               {"b", "", "add, drain or remove"},
               {"b", "drain\n", "add, drain or remove"}};
  for (const auto& each : cases) {
    expect_word(ask(each.host, each.word), each.why);
    EXPECT_EQ(members_.step(), Step::kNone) << each.word;
    EXPECT_EQ(state("a"), State::kActive);
    EXPECT_EQ(state("b"), State::kActive);
    EXPECT_EQ(members_.members().size(), 2u);
  }
  expect_word(error("b"), "add, drain or remove");
  ask("b", "drain");
  EXPECT_EQ(error("b"), "") << "the next request that is taken up clears it";
}

TEST_F(MembershipTest, WhatIsBoundToTheHomeIsNamed) {
  const std::vector<std::string> open{"0 terminal /dev/pts/1", "1 file /data/in", "2 pipe",
                                      "3 socket"};
  EXPECT_EQ(first_names({}, 100), "");
  EXPECT_EQ(first_names(open, 100), "0 terminal /dev/pts/1, 1 file /data/in, 2 pipe, 3 socket");
  EXPECT_EQ(first_names(open, 40), "0 terminal /dev/pts/1, 1 file /data/in and 2 more");
  EXPECT_EQ(first_names(open, 1), "0 terminal /dev/pts/1 and 3 more");
  Membership members("dom", "a", {"a", "b"});
  members.open([](const std::string&) { return Status(); },
               [&] {
                 return Error{EBUSY, first_names(open, 100) + " are bound to it"};
               });
  members.ask("a", "drain");
  const auto answers = members.take_answers();
  ASSERT_EQ(answers.size(), 1u);
  expect_word(answers[0].status.error().message,
              "the home of domain dom, and 0 terminal /dev/pts/1, 1 file");
  EXPECT_EQ(members.step(), Step::kNone);
}

TEST_F(MembershipTest, WhatThisProcessHasOpenIsFound) {
  const std::string file =
      std::filesystem::canonical(::testing::TempDir()) / ("bound_" + std::to_string(::getpid()));
  std::vector<UniqueFd> open;
  std::vector<std::string> expected;
  const auto expect = [&](int fd, const std::string& what) {
    ASSERT_GE(fd, 0) << what;
    open.emplace_back(fd);
    expected.push_back(std::to_string(fd) + " " + what);
  };
  const auto expect_free = [&](int fd) {
    ASSERT_GE(fd, 0);
    open.emplace_back(fd);
  };
  expect_free(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  expect_free(::open("/dev/null", O_RDWR | O_CLOEXEC));
  expect_free(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::size_t free = open.size();
  expect(::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "directory of the kernel /proc");
  expect(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  expect(::eventfd(0, EFD_CLOEXEC), "eventfd");
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  expect(ends[0], "pipe");
  expect(ends[1], "pipe");
  // More than once: each number is one that has to be seen to.
  expect(::fcntl(open.back().get(), F_DUPFD_CLOEXEC, 0), "pipe");
  if (const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC); terminal >= 0)
    expect(terminal, "terminal /dev/ptmx");
  auto names = bound_files(::getpid());
  for (const std::string& each : expected)
    EXPECT_EQ(std::count(names.begin(), names.end(), each), 1) << each;
  for (std::size_t i = 0; i < free; ++i) {
    const std::string start = std::to_string(open[i].get()) + " ";
    EXPECT_TRUE(std::none_of(names.begin(), names.end(), [&](const std::string& name) {
      return name.starts_with(start);
    })) << start;
  }
  ::unlink(file.c_str());
  names = bound_files(::getpid());
  const std::string deleted =
      std::to_string(open.front().get()) + " deleted file " + file + " (deleted)";
  EXPECT_EQ(std::count(names.begin(), names.end(), deleted), 1);
  EXPECT_TRUE(bound_files(-1).empty());
}

// A domain on a, its home, b and c; b is its heir.
class HomeLeavesTest : public testing::Test {
 protected:
  HomeLeavesTest() {
    members_.open([](const std::string&) { return Status(); }, [] { return std::string("b"); });
    members_.ask("a", "drain");
    members_.take_answers();
  }
  std::string now() const {
    constexpr const char* kNames[] = {"none", "start",     "connect",    "share", "vacate",
                                      "role", "hand over", "disconnect", "stop",  "undo"};
    return members_.host() + " " + kNames[static_cast<int>(members_.step())];
  }
  // The steps up to and with this one, which is not done yet.
  std::vector<std::string> steps_to(const std::string& last) {
    std::vector<std::string> all{now()};
    while (all.back() != last && all.size() < 20) {
      members_.done();
      all.push_back(now());
    }
    return all;
  }
  State state(const std::string& host) const { return members_.members().at(host).state; }
  std::string error(const std::string& host) const { return members_.members().at(host).error; }
  Membership members_{"dom", "a", {"a", "b", "c"}};
};

TEST_F(HomeLeavesTest, TheHeirLeavesAndJoinsAnewAndTakesTheRole) {
  EXPECT_EQ(state("a"), State::kDraining);
  EXPECT_EQ(state("b"), State::kDraining);
  const std::vector<std::string> expected{"b vacate", "b hand over", "b disconnect", "b stop",
                                          "b start",  "b connect",   "a vacate",     "a role"};
  EXPECT_EQ(steps_to("a role"), expected);
  EXPECT_EQ(state("a"), State::kDraining);
  EXPECT_EQ(state("b"), State::kActive);
  EXPECT_TRUE(members_.busy("a"));
  EXPECT_TRUE(members_.busy("b"));
  EXPECT_FALSE(members_.busy("c"));
  EXPECT_FALSE(members_.forgets());
  members_.ask("a", "remove");
  EXPECT_TRUE(members_.forgets());
  // What the heir goes on with.
  Membership heirs("dom", "b", {});
  heirs.resume({{"a", State::kDraining}, {"b", State::kActive}, {"c", State::kActive}}, "a", true);
  heirs.open([](const std::string&) { return Status(); }, [] { return std::string("c"); });
  EXPECT_EQ(heirs.step(), Step::kHandOver);
  EXPECT_EQ(heirs.host(), "a");
  for (int i = 0; i < 3; ++i) heirs.done();
  EXPECT_EQ(heirs.step(), Step::kNone);
  EXPECT_FALSE(heirs.members().contains("a"));
  EXPECT_EQ(heirs.take_forgotten(), std::vector<std::string>{"a"});
  // And it can be drained itself.
  heirs.ask("b", "drain");
  EXPECT_EQ(heirs.heir(), "c");
}

TEST_F(HomeLeavesTest, OtherRequestsWait) {
  members_.ask("b", "add");
  members_.ask("c", "drain");
  members_.ask("a", "add");
  EXPECT_TRUE(members_.take_answers().empty());
  EXPECT_EQ(now(), "b vacate");
  members_.close("the home is elsewhere");
  EXPECT_EQ(members_.take_answers().size(), 3u);
}

TEST_F(HomeLeavesTest, AnHeirThatCannotLeaveLeavesTheHomeWhereItIs) {
  steps_to("b hand over");
  members_.failed("stuck");
  EXPECT_EQ(members_.step(), Step::kNone);
  EXPECT_EQ(state("a"), State::kActive);
  EXPECT_EQ(state("b"), State::kActive);
  EXPECT_EQ(error("a"), "stuck");
  EXPECT_EQ(members_.heir(), "");
}

TEST_F(HomeLeavesTest, AnHeirThatDoesNotComeBackHasFailed) {
  steps_to("b start");
  members_.failed("no room");
  EXPECT_EQ(now(), "b undo");
  members_.done();
  EXPECT_EQ(members_.step(), Step::kNone);
  EXPECT_EQ(state("a"), State::kActive);
  EXPECT_EQ(state("b"), State::kFailed);
  EXPECT_EQ(error("a"), "no room");
}

TEST_F(HomeLeavesTest, AHomeThatKeepsItsRoleGetsItsShareAgain) {
  steps_to("a role");
  members_.failed("a file is not there");
  EXPECT_EQ(now(), "a share");
  EXPECT_EQ(state("a"), State::kActive);
  EXPECT_EQ(error("a"), "a file is not there");
  members_.done();
  EXPECT_EQ(members_.step(), Step::kNone);
  members_.ask("a", "drain");
  EXPECT_EQ(now(), "b vacate");
}

TEST_F(HomeLeavesTest, AnHeirThatDiesLeavesTheHomeWhereItIs) {
  steps_to("a vacate");
  members_.lost("b", "no sign of life");
  EXPECT_EQ(now(), "a share");
  EXPECT_EQ(state("a"), State::kActive);
  EXPECT_EQ(state("b"), State::kFailed);
}

TEST_F(MembershipTest, TheLastHostStays) {
  ask("b", "drain");
  run_to(Step::kNone);
  expect_word(ask("a", "drain"), "host a is the last host of domain dom");
  expect_word(ask("b", "drain"), "host b has left");
}

TEST_F(MembershipTest, OneChangeAtATime) {
  EXPECT_EQ(ask("c", "add"), "ok");
  EXPECT_EQ(ask("b", "drain"), "waits");
  EXPECT_EQ(ask("e", "add"), "waits");
  EXPECT_TRUE(members_.busy("b"));
  EXPECT_EQ(state("b"), State::kActive);
  run_to(Step::kShare);
  members_.done();
  EXPECT_EQ(members_.host(), "b");
  EXPECT_EQ(members_.step(), Step::kVacate);
  EXPECT_EQ(last_answer(), "ok");
  run_to(Step::kStop);
  members_.done();
  EXPECT_EQ(members_.host(), "e");
}

TEST_F(MembershipTest, AWaitingRequestIsJudgedWhenItsTurnComes) {
  ask("c", "add");
  EXPECT_EQ(ask("d", "add"), "waits");
  EXPECT_EQ(ask("b", "add"), "waits");
  down_ = "";
  run_to(Step::kShare);
  members_.take_answers();
  members_.done();
  EXPECT_EQ(members_.host(), "d") << "it is up now";
  run_to(Step::kNone);
  expect_word(last_answer(), "already");
}

TEST_F(MembershipTest, AWaitingRequestIsWithdrawnOrReplaced) {
  ask("c", "add");
  ask("b", "drain");
  EXPECT_TRUE(members_.withdraw("b"));
  EXPECT_FALSE(members_.withdraw("b"));
  EXPECT_FALSE(members_.withdraw("c")) << "it has been taken up";
  ask("b", "drain");
  EXPECT_EQ(ask("b", "remove"), "waits");
  run_to(Step::kNone);
  EXPECT_FALSE(is_member("b"));
  EXPECT_EQ(members_.take_answers().size(), 1u) << "the one that was replaced has no answer";
}

TEST_F(MembershipTest, ARepeatedRequestIsTheSame) {
  ask("c", "add");
  EXPECT_EQ(ask("c", "add"), "ok");
  run_to(Step::kNone);
  expect_word(ask("c", "add"), "already");
  ask("c", "drain");
  EXPECT_EQ(ask("c", "drain"), "ok");
  EXPECT_EQ(ask("c", "remove"), "ok") << "and is forgotten at the end";
  run_to(Step::kNone);
  EXPECT_FALSE(is_member("c"));
}

TEST_F(MembershipTest, ADrainIsTurnedRoundWhileOnlyVcpusHaveGone) {
  ask("b", "drain");
  EXPECT_EQ(ask("b", "add"), "ok");
  EXPECT_EQ(members_.step(), Step::kShare);
  EXPECT_EQ(state("b"), State::kActive);
  EXPECT_EQ(ask("b", "drain"), "ok");
  EXPECT_EQ(members_.step(), Step::kVacate);
  run_to(Step::kHandOver);
  EXPECT_EQ(ask("b", "add"), "waits");
  run_to(Step::kStop);
  members_.done();
  EXPECT_EQ(members_.step(), Step::kStart);
  EXPECT_EQ(state("b"), State::kJoining);
}

TEST_F(MembershipTest, AJoinIsDrainedAgainWhenItHasJoined) {
  ask("c", "add");
  EXPECT_EQ(ask("c", "drain"), "waits");
  run_to(Step::kShare);
  members_.done();
  EXPECT_EQ(members_.step(), Step::kVacate);
  EXPECT_EQ(state("c"), State::kDraining);
}

TEST_F(MembershipTest, WhatFailsBeforeItIsActiveIsUndone) {
  for (const Step at : {Step::kStart, Step::kConnect}) {
    EXPECT_EQ(ask("c", "add"), "ok");
    run_to(at);
    members_.failed("no route");
    EXPECT_EQ(members_.step(), Step::kUndo);
    EXPECT_EQ(state("c"), State::kJoining);
    members_.failed("again");  // what is undone is over all the same
    EXPECT_EQ(members_.step(), Step::kNone);
    EXPECT_EQ(state("c"), State::kFailed);
    EXPECT_EQ(error("c"), "no route");
  }
  expect_word(ask("c", "drain"), "has failed");
  EXPECT_EQ(ask("c", "remove"), "ok");
  EXPECT_FALSE(is_member("c"));
}

TEST_F(MembershipTest, ADrainThatCannotGoOnLeavesAMember) {
  for (const Step at : {Step::kVacate, Step::kHandOver}) {
    ask("b", "drain");
    run_to(at);
    members_.failed("a vCPU stays");
    EXPECT_EQ(members_.step(), Step::kNone);
    EXPECT_EQ(state("b"), State::kActive);
    EXPECT_EQ(error("b"), "a vCPU stays");
  }
}

// The domain goes on without a member that died, in the middle of its drain or of nothing.
TEST_F(MembershipTest, AMemberThatDiedHasFailedAndMayComeBack) {
  EXPECT_EQ(ask("b", "drain"), "ok");
  EXPECT_EQ(ask("c", "add"), "waits");
  members_.done();
  members_.lost("b", "lost host b");
  EXPECT_EQ(state("b"), State::kFailed);
  EXPECT_EQ(error("b"), "lost host b");
  EXPECT_FALSE(members_.busy("b"));
  EXPECT_EQ(members_.step(), Step::kStart) << "what waited is taken up";
  EXPECT_EQ(members_.host(), "c");
  run_to(Step::kShare);
  members_.lost("c", "lost host c");
  EXPECT_EQ(members_.step(), Step::kNone);
  EXPECT_EQ(state("c"), State::kFailed);
  expect_word(ask("c", "drain"), "has failed");
  EXPECT_EQ(ask("b", "add"), "ok");
  members_.lost("c", "again");
  EXPECT_EQ(members_.step(), Step::kStart) << "another member's change goes on";
}

TEST_F(MembershipTest, NothingIsTakenUpBeforeTheStartAndAfterTheEnd) {
  Membership early("dom", "a", {"a", "b"});
  early.ask("c", "add");
  EXPECT_EQ(early.step(), Step::kNone);
  EXPECT_TRUE(early.take_answers().empty());
  early.open([](const std::string&) { return Status(); });
  EXPECT_EQ(early.step(), Step::kStart);
  early.ask("b", "drain");
  early.take_answers();
  early.close("domain dom has ended");
  EXPECT_EQ(early.step(), Step::kNone);
  auto answers = early.take_answers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].host, "b");
  EXPECT_EQ(answers[0].status.error().message, "domain dom has ended");
  early.ask("b", "drain");
  EXPECT_FALSE(early.take_answers().at(0).status.ok());
}

// Whatever is asked and whatever happens: what the states promise holds.
TEST_F(MembershipTest, AnyOrderEndsInADocumentedState) {
  const char* const hosts[] = {"a", "b", "c", "d", "e"};
  const char* const words[] = {"add", "drain", "remove", "nonsense"};
  for (unsigned seed = 0; seed < 2000; ++seed) {
    std::mt19937 random(seed);
    Membership members("dom", "a", {"a", "b"});
    members.open([&](const std::string&) {
      return random() % 4 == 0 ? Status(Error{EHOSTDOWN, "down"}) : Status();
    });
    std::size_t asked = 0, answered = 0, withdrawn = 0;
    for (int i = 0; i < 60; ++i) {
      const char* host = hosts[random() % 5];
      switch (random() % 6) {
        case 0:
        case 1:
          // A request that waits is replaced by the next one, and has no answer.
          if (members.withdraw(host)) ++withdrawn;
          members.ask(host, words[random() % 4]);
          ++asked;
          break;
        case 2: withdrawn += members.withdraw(host) ? 1 : 0; break;
        case 3: members.failed("broken"); break;
        default: members.done(); break;
      }
      answered += members.take_answers().size();
      unsigned changing = 0;
      for (const auto& [name, member] : members.members()) {
        const bool moves = member.state == State::kJoining || member.state == State::kDraining;
        if (!moves) continue;
        ++changing;
        ASSERT_EQ(name, members.host()) << seed;
      }
      ASSERT_LE(changing, 1u) << seed;
      ASSERT_EQ(members.members().at("a").state, State::kActive) << seed;
      ASSERT_TRUE(changing == 0 || members.step() != Step::kNone) << seed;
    }
    for (int i = 0; i < 200 && members.step() != Step::kNone; ++i) members.done();
    ASSERT_EQ(members.step(), Step::kNone) << seed;
    answered += members.take_answers().size();
    ASSERT_EQ(asked, answered + withdrawn) << seed;
    for (const char* host : hosts) ASSERT_FALSE(members.busy(host)) << seed;
  }
}

HostRecord host(const std::string& name, int cores) {
  HostRecord record;
  record.name = name;
  for (int core = 0; core < cores; ++core) record.cores.push_back(core);
  return record;
}

TEST(MemberShares, ANewHostGetsItsShareHighestNumbersFirst) {
  const std::vector<HostRecord> hosts = {host("a", 1), host("b", 1), host("c", 1)};
  std::vector<std::string> on = {"a", "a", "a", "b", "b", "b"};
  std::vector<std::uint32_t> moved;
  while (const auto vcpu = next_for("c", on, hosts)) {
    moved.push_back(*vcpu);
    on[*vcpu] = "c";
    ASSERT_LE(moved.size(), 6u);
  }
  EXPECT_EQ(moved, (std::vector<std::uint32_t>{2, 5}));
  EXPECT_EQ(on[0], "a");
}

TEST(MemberShares, NobodyGivesWhatHeHasNot) {
  const std::vector<HostRecord> hosts = {host("a", 1), host("b", 1), host("c", 4)};
  EXPECT_FALSE(next_for("c", {"a", "b"}, hosts));
  EXPECT_FALSE(next_for("c", {"a", "b", "c"}, hosts));
  std::vector<std::string> on(12, "a");
  int moved = 0;
  while (const auto vcpu = next_for("c", on, hosts)) on[*vcpu] = "c", ++moved;
  EXPECT_EQ(moved, 8);
}

TEST(MemberShares, HeirsTakeTurns) {
  const std::vector<HostRecord> hosts = {host("a", 1), host("c", 2)};
  std::vector<std::string> on = {"a", "b", "b", "b", "b", "b"};
  for (std::size_t vcpu = on.size(); vcpu-- > 1;) on[vcpu] = heir_of(on, hosts);
  EXPECT_EQ(std::count(on.begin(), on.end(), "a"), 2);
  EXPECT_EQ(std::count(on.begin(), on.end(), "c"), 4);
}

}  // namespace
}  // namespace xenspan::daemon
