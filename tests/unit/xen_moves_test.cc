// vCPUs that move between slices while everybody sends them interrupts: none is lost and none comes
// twice, whoever moves them, also where a vCPU cannot be taken or put. Slices are threads; lines
// keep the order of what is sent on them, and nothing between them.
#include "dom0-daemon/slice/xen_moves.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <thread>

namespace xenspan::slice {
namespace {

using Kind = XenMoves::Kind;
using Message = XenLines::Message;

constexpr unsigned kSlices = 3, kVcpus = 4;

class Line {
 public:
  void put(Message message) {
    const std::lock_guard guard(lock_);
    messages_.push_back(std::move(message));
    changed_.notify_one();
  }
  // False: closed, and all has been read.
  bool next(Message& message) {
    std::unique_lock guard(lock_);
    changed_.wait(guard, [this] { return closed_ || !messages_.empty(); });
    if (messages_.empty()) return false;
    message = std::move(messages_.front());
    messages_.pop_front();
    return true;
  }
  void close() {
    const std::lock_guard guard(lock_);
    closed_ = true;
    changed_.notify_one();
  }

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  std::deque<Message> messages_;
  bool closed_ = false;
};

// A slice as Xen would be: a vCPU is there or down, and counts what it was interrupted by.
struct Slice {
  std::mutex events;  // as hypervisor::xen::Slice has it
  struct Vcpu {
    std::atomic<bool> there{false};
    std::atomic<std::uint64_t> interrupts{0};
  };
  std::array<Vcpu, kVcpus> vcpus;
  std::atomic<std::uint64_t> lost{0};  // delivered to one that was down
  std::atomic<bool> no_take{false}, no_put{false};
  std::unique_ptr<XenMoves> moves;
};

class XenMovesTest : public testing::Test {
 protected:
  XenMovesTest() {
    for (dsm::HostId host = 0; host < kSlices; ++host) make(host);
    for (auto& vcpu : slices_[0].vcpus) vcpu.there = true;
    for (dsm::HostId from = 0; from < kSlices; ++from)
      for (dsm::HostId to = 0; to < kSlices; ++to)
        readers_.emplace_back([this, from, to] {
          for (Message message; lines_[from][to].next(message);)
            EXPECT_NE(slices_[to].moves->handle(message), XenMoves::Handled::kNo);
        });
  }
  ~XenMovesTest() override {
    for (auto& row : lines_)
      for (Line& line : row) line.close();
    for (std::thread& reader : readers_) reader.join();
  }

  void make(dsm::HostId self) {
    Slice& slice = slices_[self];
    XenMoves::Ways ways;
    ways.take = [&slice](unsigned vcpu) -> Result<std::vector<std::byte>> {
      if (slice.no_take) return Error{EIO, "it cannot be taken"};
      const std::lock_guard guard(slice.events);
      EXPECT_TRUE(slice.vcpus[vcpu].there.exchange(false));
      const std::uint64_t count = slice.vcpus[vcpu].interrupts.exchange(0);
      std::vector<std::byte> state(sizeof count);
      std::memcpy(state.data(), &count, sizeof count);
      return state;
    };
    ways.put = [&slice](unsigned vcpu, XenMoves::Bytes state) -> Status {
      if (slice.no_put) return Error{EIO, "it cannot be put"};
      const std::lock_guard guard(slice.events);
      std::uint64_t count = 0;
      std::memcpy(&count, state.data(), sizeof count);
      slice.vcpus[vcpu].interrupts = count;
      EXPECT_FALSE(slice.vcpus[vcpu].there.exchange(true));
      return {};
    };
    ways.deliver = [&slice](unsigned vcpu, std::uint8_t) {
      slice.lost += slice.vcpus[vcpu].there ? 0 : 1;
      ++slice.vcpus[vcpu].interrupts;
    };
    ways.send = [this, self](dsm::HostId to, Kind kind, unsigned vcpu, std::uint64_t value,
                             XenMoves::Bytes bytes) {
      lines_[self][to].put({self, kind, vcpu, value, {bytes.begin(), bytes.end()}});
      return 0;
    };
    ways.quiet = [] {};
    slice.moves =
        std::make_unique<XenMoves>(self, std::vector<dsm::HostId>(kVcpus, 0), std::move(ways));
  }
  // A vCPU of that slice interrupts another.
  void send(unsigned from, unsigned vcpu) {
    Slice& slice = slices_[from];
    const std::lock_guard guard(slice.events);
    if (slice.vcpus[vcpu].there)
      ++slice.vcpus[vcpu].interrupts;
    else
      slice.moves->interrupt(vcpu, 0x40);
  }
  Status move(unsigned vcpu, dsm::HostId to) { return slices_[0].moves->move(vcpu, to, {1, 2}); }
  // Where each vCPU is: once, and where the home says.
  void expect_places() {
    for (unsigned vcpu = 0; vcpu < kVcpus; ++vcpu)
      for (unsigned host = 0; host < kSlices; ++host)
        EXPECT_EQ(slices_[host].vcpus[vcpu].there, slices_[0].moves->routes().place(vcpu) == host)
            << "vCPU " << vcpu << ", slice " << host;
  }
  std::uint64_t received() {
    std::uint64_t all = 0;
    for (Slice& slice : slices_)
      for (auto& vcpu : slice.vcpus) all += vcpu.interrupts;
    return all;
  }
  // Nothing is on any line any more: what was may have been passed on, as often as a vCPU moved.
  void settle(std::uint64_t wanted) {
    for (int tries = 0; tries < 60'000 && received() < wanted; ++tries)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  std::array<Slice, kSlices> slices_;
  Line lines_[kSlices][kSlices];
  std::vector<std::thread> readers_;
};

TEST_F(XenMovesTest, NoInterruptIsLostOrComesTwice) {
  std::atomic<bool> over{false};
  std::atomic<std::uint64_t> sent{0};
  std::vector<std::thread> senders;
  for (unsigned from = 0; from < kSlices; ++from)
    senders.emplace_back([this, from, &over, &sent] {
      std::mt19937 random(from);
      while (!over) {
        for (int i = 0; i < 20; ++i, ++sent) send(from, random() % kVcpus);
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    });
  std::mt19937 random(7);
  unsigned stayed = 0, moved = 0;
  for (int i = 0; i < 600; ++i) {
    slices_[random() % kSlices].no_take = random() % 8 == 0;
    slices_[1].no_put = random() % 8 == 0;
    const unsigned vcpu = 1 + random() % (kVcpus - 1);
    const auto to = static_cast<dsm::HostId>(random() % kSlices);
    if (slices_[0].moves->routes().place(vcpu) == 1) slices_[1].no_put = false;
    const Status done = move(vcpu, to);
    moved += done.ok();
    stayed += !done.ok();
    if (!done) {
      EXPECT_EQ(done.error().code, EBUSY);
      EXPECT_TRUE(done.error().message.starts_with("it cannot be ")) << done.error().message;
    }
    expect_places();
  }
  over = true;
  for (std::thread& sender : senders) sender.join();
  settle(sent);
  EXPECT_EQ(received(), sent);
  for (Slice& slice : slices_) EXPECT_EQ(slice.lost, 0u);
  EXPECT_GT(moved, 100u);
  EXPECT_GT(stayed, 10u);
}

// A vCPU that cannot be put where it goes, nor where it came from.
TEST_F(XenMovesTest, AVcpuThatIsNowhereIsToldOf) {
  slices_[1].no_put = true;
  slices_[0].no_put = true;
  std::thread mover([this] {
    const Status moved = move(1, 1);
    EXPECT_FALSE(moved);
  });
  for (int tries = 0; tries < 60'000 && slices_[0].moves->lost().empty(); ++tries)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(slices_[0].moves->lost(), "it cannot be put");
  mover.join();
}

// What the others have sent there before has arrived, and went on to where the vCPU is now.
TEST_F(XenMovesTest, AHostIsFlushed) {
  for (int round = 0; round < 50; ++round) {
    ASSERT_TRUE(move(1, 1));
    for (int i = 0; i < 10; ++i) send(2, 1);
    ASSERT_TRUE(move(1, 0));
    ASSERT_TRUE(slices_[0].moves->flush(1, {0, 1, 2}));
    // From here on the slice may be gone: line 1 -> 0 has them all.
    settle(10 * (round + 1));
    ASSERT_EQ(received(), 10u * (round + 1));
  }
}

}  // namespace
}  // namespace xenspan::slice
