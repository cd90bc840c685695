// The home's state as a value: from one home to its bytes and into another one, which goes on where
// the first stopped; and bytes of a stranger, which are refused or harmless.
#include "dom0-daemon/hypervisor/usermode/home_state.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "dom0-daemon/hypervisor/usermode/home.h"
#include "dom0-daemon/hypervisor/usermode/window.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr std::uint64_t kMemory = 1 << 30;
constexpr unsigned kVcpus = 3;
constexpr int kLimit = 1024;

Result<HomeState> parse(const Packet& packet) {
  return parse_home_state(packet, kVcpus, kLimit, kMemory);
}

HomeState example() {
  HomeState state;
  state.pid = 100;
  state.next_tid = 110;
  HomeState::Thread first, second;
  first.tid = 100;
  first.vcpu = first.told_vcpu = 1;
  first.host = 1;
  first.mask = 7;
  siginfo_t info{};
  info.si_signo = SIGUSR1;
  first.pending.push_back(info);
  second.tid = 105;
  second.futex_count = 4;
  second.woken = 1;
  second.affinity[0] = 5;
  state.threads = {first, second};
  state.waiters.push_back({std::uint64_t{105} << 32 | 4, ~0U, 0x8000001000});
  state.leases = {9, {{0x8000002000, 6}}};
  state.actions[SIGUSR1] = {0x5500000100, 4, 0x5500000200, 1};
  info.si_signo = SIGTERM;
  state.pending.push_back(info);
  state.timer_left = 1'000'000;
  state.timer_interval = 2'000'000;
  Mapping text, heap;
  text.range = {kPieBase, kPieBase + 0x4000};
  text.prot = PROT_READ | PROT_EXEC;
  text.backing = 2;
  text.offset = 0x1000;
  text.name = "/bin/program";
  heap.range = {kPieBase + 0x10000, kPieBase + 0x20000};
  heap.prot = PROT_READ | PROT_WRITE;
  heap.name = "[heap]";
  state.layout.mappings = {text, heap};
  state.layout.contents = {heap.range};
  state.layout.brk_start = heap.range.start;
  state.layout.brk = heap.range.end;
  state.layout_version = 12;
  state.known_by = {{3, 6}, {9, 2}};
  OpenFile file;
  file.number = 1060;
  file.mode = S_IFREG | 0644;
  file.path = "/bin/program";
  state.backings = {{2, file}};
  state.program.path = "/bin/program";
  state.program.arguments = {"program", ""};
  state.program.environment = {"A=b"};
  state.auxv = std::string(32, '\1');
  state.cwd = "/tmp";
  file.number = 1;
  file.flags = O_WRONLY | O_APPEND;
  file.path = "/tmp/out";
  OpenFile copy = file;
  copy.number = 2;
  copy.same_as = 1;
  state.files = {file, copy};
  return state;
}

TEST(HomeStateBytes, ComeBackAsTheyWere) {
  const Packet packet = pack(example());
  const auto state = parse(packet);
  ASSERT_TRUE(state) << state.error().message;
  EXPECT_EQ(pack(*state), packet);
  EXPECT_EQ(state->threads[1].futex_count, 4u);
  EXPECT_EQ(state->layout.mappings[0].name, "/bin/program");
  EXPECT_EQ(state->files[1].same_as, 1);
}

TEST(HomeStateBytes, ThatEndTooSoonOrTooLateAreRefused) {
  const Packet packet = pack(example());
  for (std::size_t bytes = 0; bytes < packet.size(); ++bytes)
    ASSERT_FALSE(parse(Packet(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(bytes))))
        << bytes;
  Packet longer = packet;
  longer.push_back(0);
  EXPECT_FALSE(parse(longer));
}

TEST(HomeStateBytes, OfAnotherVersionAreRefusedWithTheRemedy) {
  Packet packet = pack(example());
  ++packet[0];
  const auto state = parse(packet);
  ASSERT_FALSE(state);
  EXPECT_EQ(state.error().code, EPROTONOSUPPORT);
  EXPECT_NE(state.error().message.find("install the same xenspan"), std::string::npos);
}

// Whatever is accepted is a state that can be sent on, and taken as a layout.
TEST(HomeStateBytes, WithErrorsAreRefusedOrHarmless) {
  const Packet packet = pack(example());
  std::mt19937 random(1);
  unsigned refused = 0;
  for (int round = 0; round < 20000; ++round) {
    Packet bad = packet;
    for (unsigned count = 1 + random() % 4; count > 0; --count)
      bad[random() % bad.size()] = static_cast<std::uint8_t>(random() % 3 == 0 ? 0xff : random());
    const auto state = parse(bad);
    if (!state) {
      ++refused;
      continue;
    }
    ASSERT_EQ(pack(*state), bad);
    ASSERT_TRUE(AddressSpace(kMemory).take(state->layout));
  }
  EXPECT_GT(refused, 1000u);
}

TEST(HomeStateBytes, ThatReferToNothingAreRefused) {
  const struct {
    const char* what;
    void (*spoil)(HomeState&);
  } cases[] = {
      {"no thread", [](HomeState& state) { state.threads.clear(); }},
      {"thread twice", [](HomeState& state) { state.threads[1].tid = 100; }},
      {"thread not reserved", [](HomeState& state) { state.next_tid = 105; }},
      {"vCPU", [](HomeState& state) { state.threads[0].vcpu = kVcpus; }},
      {"host", [](HomeState& state) { state.threads[0].host = dsm::kMaxHosts; }},
      {"waiter of nobody", [](HomeState& state) { state.waiters[0].ticket = 1; }},
      {"waits twice", [](HomeState& state) { state.waiters.push_back(state.waiters[0]); }},
      {"signal", [](HomeState& state) { state.pending[0].si_signo = 65; }},
      {"signal twice", [](HomeState& state) { state.pending.push_back(state.pending[0]); }},
      {"timer", [](HomeState& state) { state.timer_left = -1; }},
      {"mapping outside",
       [](HomeState& state) { state.layout.mappings[1].range.end = kWindowEnd + 4096; }},
      {"mappings overlap",
       [](HomeState& state) { state.layout.mappings[1].range.start = kPieBase; }},
      {"half a page", [](HomeState& state) { state.layout.mappings[0].range.end -= 100; }},
      {"more than the limit",
       [](HomeState& state) { state.layout.mappings[1].range.end += 2 * kMemory; }},
      {"no file behind it", [](HomeState& state) { state.backings.clear(); }},
      {"brk", [](HomeState& state) { state.layout.brk = 1; }},
      {"descriptor", [](HomeState& state) { state.files[1].number = kLimit; }},
      {"copy of nothing", [](HomeState& state) { state.files[1].same_as = 7; }},
      {"descriptor twice", [](HomeState& state) { state.files[1].number = 1; }},
      {"relative path", [](HomeState& state) { state.files[0].path = "out"; }},
      {"a socket", [](HomeState& state) { state.files[0].mode = S_IFSOCK; }},
      {"program", [](HomeState& state) { state.program.path = ""; }},
      {"directory", [](HomeState& state) { state.cwd = "tmp"; }},
  };
  for (const auto& each : cases) {
    HomeState state = example();
    each.spoil(state);
    EXPECT_FALSE(parse(pack(state))) << each.what;
  }
}

TEST(LayoutState, GoesOnAsItWas) {
  std::mt19937 random(2);
  AddressSpace space(kMemory);
  space.set_brk_start(kPieBase + 0x100000);
  for (int step = 0; step < 400; ++step) {
    const std::uint64_t bytes = (1 + random() % 16) * 4096;
    const int prot = random() % 2 == 0 ? PROT_READ : PROT_READ | PROT_WRITE;
    const Change made =
        space.mmap(0, bytes, prot, random() % 4 == 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, 1,
                   4096, "/file");
    if (random() % 3 == 0) space.munmap(static_cast<std::uint64_t>(made.result), 4096);
    if (random() % 3 == 0)
      space.mprotect(static_cast<std::uint64_t>(made.result), bytes, prot ^ PROT_WRITE);
    if (random() % 9 == 0) space.brk(space.brk_now() + 4096);
  }
  AddressSpace other(kMemory);
  ASSERT_TRUE(other.take(space.state()));
  EXPECT_EQ(other.maps(), space.maps());
  EXPECT_EQ(other.accessible_bytes(), space.accessible_bytes());
  EXPECT_EQ(other.mapped_bytes(), space.mapped_bytes());
  EXPECT_EQ(other.writable_shared({kWindowStart, kWindowEnd}).size(),
            space.writable_shared({kWindowStart, kWindowEnd}).size());
  for (int step = 0; step < 50; ++step) {
    const std::uint64_t bytes = (1 + random() % 16) * 4096;
    const auto map = [&](AddressSpace& in) {
      return in.mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, "")
          .result;
    };
    ASSERT_EQ(map(other), map(space));
  }
  // What has to be emptied later is known as well.
  const auto all = [](AddressSpace& in) {
    return in.munmap(kWindowStart, kWindowEnd - kWindowStart).discarded;
  };
  EXPECT_EQ(all(other), all(space));
}

class TwoHomes : public ::testing::Test {
 protected:
  TwoHomes() {
    char name[] = "/tmp/home_state_XXXXXX";
    directory_ = ::mkdtemp(name);
    old_ = std::make_unique<Home>(services());
    new_ = std::make_unique<Home>(services());
  }
  ~TwoHomes() override { std::filesystem::remove_all(directory_); }

  Home::Services services() {
    Home::Services services;
    services.layout = &layout_;
    services.places = &places_;
    services.hosts = {"a", "b"};
    services.memory = kMemory;
    services.descriptor_limit = kLimit;
    services.directory = directory_;
    services.start_thread = [](dsm::HostId, const StartThread&) { return 0; };
    services.forbid = [](dsm::HostId, std::uint64_t, const Range&) {};
    services.kick = services.call_away = [](dsm::HostId, int) {};
    services.take_back_lease = [this](dsm::HostId, std::uint64_t, std::uint64_t version) {
      taken_back_ = version;
    };
    services.end = [](const Home::Services::End&) {};
    return services;
  }
  Packet ask(Home& home, int tid, Op op, const Packet& request) {
    Packet answer;
    HomeThread nobody;
    const auto thread = home.thread(tid);
    home.serve(thread ? *thread : nobody, op, request, answer);
    return answer;
  }
  template <typename... Fields>
  Packet ask(Home& home, int tid, Op op, Fields... fields) {
    Packet request;
    Writer out(request);
    (out.put(fields), ...);
    return ask(home, tid, op, request);
  }
  int start_thread(Home& home) {
    CloneRequest clone{};
    clone.tid = Reader(ask(home, 0, Op::kReserveTid)).get<std::int32_t>();
    EXPECT_EQ(Reader(ask(home, 0, Op::kClone, clone)).get<std::int64_t>(), clone.tid);
    return clone.tid;
  }
  std::int64_t map(Home& home, int tid, std::uint64_t bytes) {
    const std::array<std::uint64_t, 6> args{
        0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, ~0ULL, 0};
    return Reader(ask(home, tid, Op::kMemory, std::int64_t{SYS_mmap}, args)).get<std::int64_t>();
  }
  void hand_over() {
    HomeState state = old_->state();
    state.program.path = "/bin/true";  // none was loaded
    state.files.clear();
    const auto parsed = parse(pack(state));
    ASSERT_TRUE(parsed) << parsed.error().message;
    const Status taken = new_->take(*parsed);
    ASSERT_TRUE(taken) << taken.error().message;
  }

  LayoutTable layout_;
  VcpuPlaces places_{std::vector<VcpuPlace>{{1, 0}, {1, 1}, {1, 0}}};
  std::string directory_;
  std::uint64_t taken_back_ = 0;
  std::unique_ptr<Home> old_, new_;
};

TEST_F(TwoHomes, TheSecondGoesOnWhereTheFirstStopped) {
  const int a = start_thread(*old_), b = start_thread(*old_);
  GuestAction action{0x5500000100, 0, 0x5500000200, 0};
  ask(*old_, a, Op::kSigaction, std::int32_t{SIGUSR1}, std::uint8_t{1}, action);
  old_->thread(b)->mask = signal_bit(SIGUSR1);
  siginfo_t info{};
  info.si_signo = SIGUSR1;
  info.si_code = SI_TKILL;
  ask(*old_, a, Op::kSendSignal, std::int32_t{0}, std::int32_t{b}, std::int32_t{SIGUSR1}, info);
  const std::int64_t hour = 3600'000'000'000;
  ask(*old_, a, Op::kTimer, hour, hour / 2, std::uint8_t{1});
  constexpr std::uint64_t kWord = 0x8000001000, kIdle = 0x8000009000;
  // b is queued, and not asleep yet. Nobody waits at the other word, and host b is told so.
  const auto ticket = Reader(ask(*old_, b, Op::kFutexEnqueue, kWord, ~0U)).get<std::uint64_t>();
  for (int i = 0; i < 10; ++i) ask(*old_, a, Op::kFutexWake, kIdle, 1U, ~0U);
  const Packet last = ask(*old_, a, Op::kFutexWake, kIdle, 1U, ~0U);
  Reader in(last);
  in.get<std::int64_t>();
  const auto lease = in.get<std::uint64_t>();
  EXPECT_NE(lease, 0u);
  const std::int64_t mapped = map(*old_, a, 0x5000);
  ASSERT_GT(mapped, 0);

  hand_over();

  ASSERT_EQ(new_->threads().size(), 2u);
  EXPECT_EQ(new_->threads()[0].host, 1);
  EXPECT_EQ(new_->thread(b)->mask.load(), signal_bit(SIGUSR1));
  // Threads get new numbers, and memory new places.
  EXPECT_GT(start_thread(*new_), b);
  EXPECT_EQ(map(*new_, a, 0x5000), map(*old_, a, 0x5000));
  // The signal waits until it is let in, and finds its handler.
  const Packet none = ask(*new_, b, Op::kTakeSignal, signal_bit(SIGUSR1));
  EXPECT_EQ(Reader(none).get<std::int32_t>(), 0);
  const Packet taken = ask(*new_, b, Op::kTakeSignal, std::uint64_t{0});
  Reader signal(taken);
  EXPECT_EQ(signal.get<std::int32_t>(), SIGUSR1);
  EXPECT_EQ(signal.get<siginfo_t>().si_code, SI_TKILL);
  EXPECT_EQ(signal.get<GuestAction>().handler, action.handler);
  // So much of the timer is left.
  const Packet timer = ask(*new_, a, Op::kTimer, std::int64_t{0}, std::int64_t{0}, std::uint8_t{0});
  Reader left(timer);
  const auto due = left.get<std::int64_t>();
  EXPECT_GT(due, 0);
  EXPECT_LE(due, hour);
  EXPECT_EQ(left.get<std::int64_t>(), hour / 2);
  // b is woken, before it sleeps.
  const Packet woken = ask(*new_, a, Op::kFutexWake, kWord, 5U, ~0U);
  EXPECT_EQ(Reader(woken).get<std::int64_t>(), 1);
  const Packet slept = ask(*new_, b, Op::kFutexSleep, ticket, std::int64_t{-1});
  EXPECT_EQ(Reader(slept).get<std::int64_t>(), 0);
  // The lease is taken back, by a newer version.
  ask(*new_, b, Op::kFutexEnqueue, kIdle, ~0U);
  EXPECT_GT(taken_back_, lease);
}

// It was woken at the old home, and sleeps at the new one.
TEST_F(TwoHomes, AWakeIsNotLostOnTheWay) {
  const int a = start_thread(*old_), b = start_thread(*old_);
  const auto ticket = Reader(ask(*old_, b, Op::kFutexEnqueue, std::uint64_t{0x8000001000}, ~0U))
                          .get<std::uint64_t>();
  ask(*old_, a, Op::kFutexWake, std::uint64_t{0x8000001000}, 1U, ~0U);
  hand_over();
  const Packet slept = ask(*new_, b, Op::kFutexSleep, ticket, std::int64_t{-1});
  EXPECT_EQ(Reader(slept).get<std::int64_t>(), 0);
}

// Calls that wait are to be made again while the home is held, and only then.
TEST_F(TwoHomes, CallsThatWaitEndWhenItIsHeld) {
  const int a = start_thread(*old_), b = start_thread(*old_);
  std::int32_t waited = 0;
  std::int64_t slept = 0;
  std::thread waiter([&] {
    const Packet answer = ask(*old_, a, Op::kSignalWait, signal_bit(SIGUSR2), std::int64_t{-1});
    waited = Reader(answer).get<std::int32_t>();
  });
  std::thread sleeper([&] {
    const Packet queued = ask(*old_, b, Op::kFutexEnqueue, std::uint64_t{0x8000001000}, ~0U);
    const auto ticket = Reader(queued).get<std::uint64_t>();
    const Packet answer = ask(*old_, b, Op::kFutexSleep, ticket, std::int64_t{-1});
    slept = Reader(answer).get<std::int64_t>();
  });
  old_->hold();
  waiter.join();
  sleeper.join();
  EXPECT_EQ(waited, kStartAgain);
  EXPECT_EQ(slept, -EINTR);
  EXPECT_EQ(old_->calls_under_way(), 0u);
  EXPECT_EQ(old_->threads_on(1), 2u);
  EXPECT_EQ(old_->threads_on(0), 0u);
  old_->release();
  const Packet again = ask(*old_, a, Op::kSignalWait, signal_bit(SIGUSR2), std::int64_t{1'000'000});
  EXPECT_EQ(Reader(again).get<std::int32_t>(), -EAGAIN);
}

// What comes from outside while the state is on its way is neither lost nor there twice.
TEST_F(TwoHomes, SignalsMeanwhileAreKept) {
  const int a = start_thread(*old_);
  const auto pending = [&](Home& home) {
    return Reader(ask(home, a, Op::kPending)).get<std::uint64_t>();
  };
  old_->begin_giving();
  old_->outside_signal(SIGTERM);
  EXPECT_EQ(pending(*old_), 0u);
  old_->keep();
  EXPECT_EQ(pending(*old_), signal_bit(SIGTERM));
  old_->begin_giving();
  old_->outside_signal(SIGINT);
  hand_over();
  EXPECT_EQ(old_->retire(), std::vector<int>{SIGINT});
  EXPECT_EQ(pending(*new_), signal_bit(SIGTERM));
}

// The domain's clocks go on as they were at its first home.
TEST_F(TwoHomes, ClocksAreTheDomains) {
  const int a = start_thread(*old_);
  Home::Services later = services();
  later.monotonic_offset = 3600'000'000'000;
  later.realtime_offset = -60'000'000'000;
  new_ = std::make_unique<Home>(std::move(later));
  hand_over();
  const Packet before = ask(*old_, a, Op::kClock), after = ask(*new_, a, Op::kClock);
  Reader first(before), second(after);
  const auto old_monotonic = first.get<std::int64_t>(), old_realtime = first.get<std::int64_t>();
  EXPECT_GE(second.get<std::int64_t>(), old_monotonic + 3600'000'000'000);
  EXPECT_LT(second.get<std::int64_t>(), old_realtime);
  EXPECT_EQ(second.get<std::int32_t>(), first.get<std::int32_t>()) << "the process's id";
  EXPECT_EQ(second.get<BootId>(), boot_id());
  EXPECT_EQ(second.get<std::int64_t>(), 3600'000'000'000);
  EXPECT_EQ(second.get<std::int64_t>(), -60'000'000'000);
}

TEST_F(TwoHomes, WhatIsMissingThereIsNamedAndNothingIsTaken) {
  start_thread(*old_);
  HomeState state = old_->state();
  state.program.path = "/bin/true";
  OpenFile missing;
  missing.number = 7;
  missing.mode = S_IFREG;
  missing.path = "/nothing/here";
  state.backings = {{0, missing}};
  const Status taken = new_->take(state);
  ASSERT_FALSE(taken);
  EXPECT_NE(taken.error().message.find("7 (/nothing/here)"), std::string::npos);
  EXPECT_TRUE(new_->threads().empty());
  state.backings.clear();
  EXPECT_TRUE(new_->take(state));
  EXPECT_FALSE(new_->take(state)) << "it has a domain";
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
