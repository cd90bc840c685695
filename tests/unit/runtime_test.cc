// The runtime's parts that stand alone: packets, parker, layout cache, and the guest view on the
// real userfaultfd.
#include <gtest/gtest.h>
#include <setjmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "dom0-daemon/hypervisor/usermode/frame_block.h"
#include "dom0-daemon/hypervisor/usermode/guest_thread.h"
#include "dom0-daemon/hypervisor/usermode/guest_view.h"
#include "dom0-daemon/hypervisor/usermode/layout_table.h"
#include "dom0-daemon/hypervisor/usermode/packet.h"
#include "dom0-daemon/hypervisor/usermode/parker.h"
#include "dom0-daemon/hypervisor/usermode/runtime_signals.h"

namespace xenspan::hypervisor::usermode {
namespace {

using dsm::Right;

TEST(Packet, ReaderNeverReadsPastTheEnd) {
  Packet packet;
  Writer(packet).put(std::uint32_t{7}).put(std::uint8_t{1});
  Reader in(packet);
  EXPECT_EQ(in.get<std::uint32_t>(), 7u);
  EXPECT_TRUE(in.ok());
  EXPECT_EQ(in.get<std::uint64_t>(), 0u);
  EXPECT_FALSE(in.ok());
  EXPECT_EQ(in.get<std::uint8_t>(), 0u) << "after an error nothing is read any more";
}

TEST(Parker, AWakeBeforeTheSleepIsNotLost) {
  Parker parker;
  parker.prepare();
  parker.wake();
  EXPECT_EQ(parker.sleep(-1), 0);
}

TEST(Parker, WakeWinsOverInterrupt) {
  Parker parker;
  parker.prepare();
  parker.interrupt();
  parker.wake();
  parker.interrupt();
  EXPECT_EQ(parker.sleep(-1), 0);
  parker.prepare();
  parker.interrupt();
  EXPECT_EQ(parker.sleep(-1), -EINTR);
  EXPECT_EQ(parker.sleep(1'000'000), -ETIMEDOUT) << "an interrupt is used up by one sleep";
}

TEST(Parker, WakesASleeper) {
  Parker parker;
  parker.prepare();
  std::thread waker([&parker] { parker.wake(); });
  EXPECT_EQ(parker.sleep(-1), 0);
  waker.join();
}

TEST(LayoutTable, LearnsWithinItsBlockAndForgets) {
  LayoutTable layout;
  constexpr std::uint64_t kBlock = LayoutTable::kBlock;
  const std::uint64_t address = 0x8000000000 + kBlock;
  layout.learn(address, {address - 0x1000, address + 2 * kBlock}, PROT_READ | PROT_WRITE);
  EXPECT_EQ(layout.at(gfn_of(address - 0x1000)), LayoutTable::kUnknown) << "another block";
  EXPECT_TRUE(LayoutTable::allows(layout.at(gfn_of(address)), true));
  EXPECT_TRUE(LayoutTable::allows(layout.at(gfn_of(address + kBlock - 0x1000)), true));
  EXPECT_EQ(layout.at(gfn_of(address + kBlock)), LayoutTable::kUnknown);
  layout.forget({address + 0x1000, address + 0x2000});
  EXPECT_EQ(layout.at(gfn_of(address + 0x1000)), LayoutTable::kUnknown);
  EXPECT_TRUE(LayoutTable::allows(layout.at(gfn_of(address + 0x2000)), true));
  layout.forget({kWindowStart, kWindowEnd});
  EXPECT_EQ(layout.at(gfn_of(address)), LayoutTable::kUnknown);
}

TEST(LayoutTable, RightsAreThoseOfTheProtection) {
  const auto known = [](int prot) { return static_cast<std::uint8_t>(LayoutTable::kKnown | prot); };
  EXPECT_FALSE(LayoutTable::allows(known(PROT_NONE), false));
  EXPECT_TRUE(LayoutTable::allows(known(PROT_READ), false));
  EXPECT_FALSE(LayoutTable::allows(known(PROT_READ | PROT_EXEC), true));
  EXPECT_TRUE(LayoutTable::allows(known(PROT_READ | PROT_WRITE), true));
  EXPECT_FALSE(LayoutTable::allows(LayoutTable::kUnknown, false));
}

// More kicks than frames fit on the signal stack come while a thread does not run.
TEST(RuntimeSignals, KicksThatPileUpComeAsOne) {
  if (const Status installed = install_signal_handlers(); !installed)
    GTEST_SKIP() << installed.error().message;
  std::thread([] {
    std::vector<std::byte> bytes(256 << 10);
    stack_t stack{};
    stack.ss_sp = bytes.data();
    stack.ss_size = bytes.size();
    ASSERT_EQ(::sigaltstack(&stack, nullptr), 0);
    ThreadBlock block;
    enter_thread_block(block);
    {
      const SignalsHeld held;
      for (int i = 0; i < 2000; ++i)
        ASSERT_EQ(::syscall(SYS_tgkill, ::getpid(), ::gettid(), kKickSignal), 0);
    }
    leave_thread_block();
    stack = {};
    stack.ss_flags = SS_DISABLE;
    ASSERT_EQ(::sigaltstack(&stack, nullptr), 0);
  }).join();
}

// Also in a thread that the runtime does not know.
TEST(RuntimeSignalsDeathTest, AFaultOfTheRuntimeIsTold) {
  if (const Status installed = install_signal_handlers(); !installed)
    GTEST_SKIP() << installed.error().message;
  const auto fault = [] {
    volatile std::uintptr_t nowhere = 8;
    *reinterpret_cast<volatile int*>(nowhere) = 1;
  };
  const char* told =
      "signal 11 in the runtime at pc 0x[0-9a-f]+ .program . 0x[0-9a-f]+., address 0x8, thread "
      "[0-9]+";
  EXPECT_DEATH(fault(), told);
  EXPECT_DEATH(std::thread(fault).join(), told);
}

// A kick that comes before a new thread has its block waits for it.
TEST(RuntimeSignals, ANewThreadTakesNoSignalBeforeItsBlock) {
  if (const Status installed = install_signal_handlers(); !installed)
    GTEST_SKIP() << installed.error().message;
  bool pending = false;
  std::thread thread;
  {
    const SignalsHeld held;
    thread = std::thread([&pending] {
      ::syscall(SYS_tgkill, ::getpid(), ::gettid(), kKickSignal);
      sigset_t waiting;
      ::sigpending(&waiting);
      pending = ::sigismember(&waiting, kKickSignal) == 1;
      ThreadBlock block;
      enter_thread_block(block);
      ::sigpending(&waiting);
      pending = pending && ::sigismember(&waiting, kKickSignal) == 0;
      leave_thread_block();
    });
  }
  thread.join();
  EXPECT_TRUE(pending);
}

sigjmp_buf fault_return;

void on_bus_error(int) { siglongjmp(fault_return, 1); }

// Whether the kernel may give memory by the block, which the daemon decides on a real host.
class BlocksAllowed {
 public:
  explicit BlocksAllowed(bool wanted) {
    std::getline(std::ifstream(kFile), before_);
    std::ofstream file(kFile);
    possible_ = !before_.empty() && (file << (wanted ? "advise" : "never")).flush();
  }
  ~BlocksAllowed() {
    const auto from = before_.find('['), to = before_.find(']');
    if (from < to) std::ofstream(kFile) << before_.substr(from + 1, to - from - 1) << std::endl;
  }
  bool possible() const { return possible_; }

 private:
  static_assert(kBlockBytes == 32 * 1024);
  static constexpr const char* kFile =
      "/sys/kernel/mm/transparent_hugepage/hugepages-32kB/shmem_enabled";
  std::string before_;
  bool possible_;
};

enum class Kernel { kBest, kBlocks, kCopy };

// The ways to map a page write-protected, the kernel's best and the one of kernels before 6.4, and
// memory that comes by the page or by the block.
class GuestViewTest : public ::testing::TestWithParam<Kernel> {
 protected:
  void SetUp() override {
    allowed_.emplace(GetParam() == Kernel::kBlocks);
    if (GetParam() == Kernel::kBlocks && !allowed_->possible())
      GTEST_SKIP() << "needs Linux 6.11 and root";
    auto made = GuestView::create(layout_, GetParam() == Kernel::kCopy ? GuestView::Protect::kCopy
                                                                       : GuestView::Protect::kBest);
    ASSERT_TRUE(made.ok()) << made.error().message;
    view_ = std::move(*made);
    ASSERT_EQ(view_->in_blocks(), GetParam() == Kernel::kBlocks);
    ASSERT_EQ(view_->frames_bytes(), 0u);
    layout_.learn(kAddress, {kAddress, kAddress + 0x200000}, PROT_READ | PROT_WRITE);
    struct sigaction action {};
    action.sa_handler = on_bus_error;
    action.sa_flags = SA_NODEFER;
    ::sigaction(SIGBUS, &action, &old_);
  }
  void TearDown() override { ::sigaction(SIGBUS, &old_, nullptr); }

  // Whether the guest's view lets a thread read, or write, the page: tried for real.
  static bool can(std::uint64_t address, bool write) {
    auto* byte = reinterpret_cast<volatile std::uint8_t*>(address);
    if (sigsetjmp(fault_return, 1) != 0) return false;
    if (write)
      *byte = 0x5a;
    else
      (void)*byte;
    return true;
  }
  static bool readable(std::uint64_t address) { return can(address, false); }
  static bool writable(std::uint64_t address) { return can(address, true); }

  static constexpr std::uint64_t kAddress = 0x8000000000;
  static constexpr dsm::Gfn kGfn = gfn_of(kAddress);
  std::optional<BlocksAllowed> allowed_;
  LayoutTable layout_;
  std::unique_ptr<GuestView> view_;
  struct sigaction old_ {};
};

TEST_P(GuestViewTest, RightsAreThoseOfTheMapping) {
  EXPECT_FALSE(readable(kAddress));
  EXPECT_EQ(view_->grant(kGfn, 1, Right::kShared), 0);
  EXPECT_TRUE(readable(kAddress));
  EXPECT_FALSE(writable(kAddress));
  EXPECT_EQ(view_->grant(kGfn, 1, Right::kExclusive), 0);
  EXPECT_TRUE(writable(kAddress));
  EXPECT_EQ(view_->frame(kGfn)[0], std::byte{0x5a});
  EXPECT_EQ(view_->protect(kGfn), 0);
  EXPECT_FALSE(writable(kAddress));
  EXPECT_TRUE(readable(kAddress));
  EXPECT_EQ(view_->withdraw(kGfn), 0);
  EXPECT_FALSE(readable(kAddress));
  EXPECT_EQ(view_->frame(kGfn)[0], std::byte{0x5a}) << "the frame keeps its contents";
}

TEST_P(GuestViewTest, AProtectedPageStaysProtectedThroughWithdrawAndGrant) {
  ASSERT_EQ(view_->grant(kGfn, 1, Right::kShared), 0);
  ASSERT_EQ(view_->withdraw(kGfn), 0);
  ASSERT_EQ(view_->grant(kGfn, 1, Right::kExclusive), 0);
  EXPECT_TRUE(writable(kAddress));
  ASSERT_EQ(view_->withdraw(kGfn), 0);
  ASSERT_EQ(view_->grant(kGfn, 1, Right::kShared), 0);
  EXPECT_FALSE(writable(kAddress));
}

TEST_P(GuestViewTest, ExclusiveOnAReadOnlyMappingIsNotWritable) {
  layout_.learn(kAddress, {kAddress, kAddress + 0x1000}, PROT_READ);
  ASSERT_EQ(view_->grant(kGfn, 1, Right::kExclusive), 0);
  EXPECT_TRUE(readable(kAddress));
  EXPECT_FALSE(writable(kAddress));
}

TEST_P(GuestViewTest, RunsAndDroppedFrames) {
  const auto run = view_->fault_around(kGfn + 3);
  EXPECT_LE(run.first, kGfn + 3);
  EXPECT_GT(run.first + run.count, kGfn + 3);
  ASSERT_EQ(view_->grant(run.first, run.count, Right::kExclusive), 0);
  EXPECT_TRUE(writable(address_of(run.first + run.count - 1)));
  const std::uint64_t before = view_->frames_bytes();
  ASSERT_EQ(view_->drop_run(run.first, run.count), 0);
  EXPECT_LT(view_->frames_bytes(), before);
  EXPECT_FALSE(readable(address_of(run.first)));
  EXPECT_EQ(view_->frame(run.first)[0], std::byte{0}) << "a dropped frame reads as zero";
}

TEST_P(GuestViewTest, RunsOfPagesAreFilledRaisedAndProtected) {
  constexpr std::uint32_t kPages = 8;
  // A read-only page in the middle of the run.
  layout_.learn(kAddress, {kAddress + 0x4000, kAddress + 0x5000}, PROT_READ);
  const auto writable_at = [](dsm::Gfn gfn) { return gfn != kGfn + 4; };
  constexpr std::size_t kApart = 64;  // contents behind each other, or with something in between
  std::vector<std::byte> contents(kPages * (dsm::kPageSize + kApart));
  const std::byte* pages[kPages];
  std::uint8_t seed = 0;
  const auto fill = [&](dsm::Right right, bool fresh, std::size_t apart = 0) {
    ++seed;
    for (std::uint32_t i = 0; i < kPages; ++i) {
      std::byte* const page = contents.data() + i * (dsm::kPageSize + apart);
      std::memset(page, seed + static_cast<int>(i), dsm::kPageSize);
      pages[i] = page;
    }
    ASSERT_EQ(view_->fill_run(kGfn, kPages, right, pages, fresh), 0);
    for (std::uint32_t i = 0; i < kPages; ++i) {
      const std::uint64_t address = address_of(kGfn + i);
      ASSERT_TRUE(readable(address)) << i;
      const auto* page = reinterpret_cast<const std::byte*>(address);
      EXPECT_EQ(page[0], std::byte(seed + i)) << i;
      EXPECT_EQ(page[dsm::kPageSize - 1], std::byte(seed + i)) << i;
      EXPECT_EQ(view_->frame(kGfn + i)[1], std::byte(seed + i)) << i;
      EXPECT_EQ(writable(address), right == Right::kExclusive && writable_at(kGfn + i)) << i;
    }
  };
  fill(Right::kShared, true);
  ASSERT_EQ(view_->raise_run(kGfn, kPages), 0);
  for (std::uint32_t i = 0; i < kPages; ++i)
    EXPECT_EQ(writable(address_of(kGfn + i)), writable_at(kGfn + i)) << i;
  ASSERT_EQ(view_->protect_run(kGfn, kPages), 0);
  for (std::uint32_t i = 0; i < kPages; ++i) EXPECT_FALSE(writable(address_of(kGfn + i))) << i;
  ASSERT_EQ(view_->withdraw_run(kGfn, kPages), 0);
  for (std::uint32_t i = 0; i < kPages; ++i) EXPECT_FALSE(readable(address_of(kGfn + i))) << i;
  fill(Right::kExclusive, false);
  ASSERT_EQ(view_->withdraw_run(kGfn, kPages), 0);
  // Called fresh, and some of it is there already.
  for (const std::size_t apart : {std::size_t{0}, kApart}) {
    ASSERT_EQ(view_->drop_run(kGfn + 5, 2), 0);
    fill(Right::kShared, true, apart);
    ASSERT_EQ(view_->withdraw_run(kGfn, kPages), 0);
    ASSERT_EQ(view_->drop_run(kGfn, 2), 0);
    fill(Right::kShared, true, apart);
    ASSERT_EQ(view_->withdraw_run(kGfn, kPages), 0);
    ASSERT_EQ(view_->drop_run(kGfn, kPages), 0);
    fill(Right::kExclusive, true, apart);
    ASSERT_EQ(view_->withdraw_run(kGfn, kPages), 0);
  }
}

// Only pages that come together are worth a block's memory.
TEST_P(GuestViewTest, MemoryIsTakenForWhatIsMapped) {
  const std::uint64_t block = GetParam() == Kernel::kBlocks ? kBlockBytes : dsm::kPageSize;
  const std::vector<std::byte> contents(dsm::kPageSize, std::byte{7});
  const std::byte* const pages[] = {contents.data(), contents.data(), contents.data(),
                                    contents.data()};
  ASSERT_EQ(view_->grant(kGfn, 1, Right::kExclusive), 0);
  EXPECT_EQ(view_->frames_bytes(), dsm::kPageSize);
  ASSERT_EQ(view_->grant(kGfn + 63, 1, Right::kShared), 0);
  EXPECT_EQ(view_->frames_bytes(), 2 * dsm::kPageSize);
  ASSERT_EQ(view_->fill_run(kGfn + 127, 1, Right::kShared, pages, true), 0);
  ASSERT_EQ(view_->fill_run(kGfn + 191, 2, Right::kShared, pages, true), 0);
  EXPECT_EQ(view_->frames_bytes(), 5 * dsm::kPageSize);
  ASSERT_EQ(view_->fill_run(kGfn + 256, 4, Right::kShared, pages, true), 0);
  EXPECT_EQ(view_->frames_bytes(), 5 * dsm::kPageSize + std::max(block, 4 * dsm::kPageSize));
  EXPECT_EQ(view_->frame(kGfn + 259)[9], std::byte{7});
  EXPECT_EQ(view_->frame(kGfn + 260)[9], std::byte{0});
  // A page of a block, dropped: its neighbours keep their contents. They may have to be mapped
  // anew (the kernel takes the block apart), as at a fault.
  ASSERT_EQ(view_->withdraw_run(kGfn + 257, 1), 0);
  ASSERT_EQ(view_->drop_run(kGfn + 257, 1), 0);
  EXPECT_EQ(view_->frame(kGfn + 256)[9], std::byte{7});
  EXPECT_EQ(view_->frame(kGfn + 257)[9], std::byte{0});
  EXPECT_EQ(view_->frame(kGfn + 258)[9], std::byte{7});
  ASSERT_EQ(view_->grant(kGfn + 258, 1, Right::kShared), 0);
  EXPECT_TRUE(readable(address_of(kGfn + 258)));
  EXPECT_FALSE(writable(address_of(kGfn + 258)));
  EXPECT_FALSE(readable(address_of(kGfn + 257)));
}

TEST_P(GuestViewTest, FaultAroundStopsWhereTheLayoutChanges) {
  layout_.learn(kAddress + 0x4000, {kAddress + 0x4000, kAddress + 0x5000}, PROT_READ);
  const auto run = view_->fault_around(kGfn + 2);
  EXPECT_LE(run.first + run.count, kGfn + 4);
}

const char* kernel_name(const ::testing::TestParamInfo<Kernel>& info) {
  constexpr const char* kNames[] = {"best", "blocks", "copy"};
  return kNames[static_cast<std::size_t>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(Kernels, GuestViewTest,
                         ::testing::Values(Kernel::kBest, Kernel::kBlocks, Kernel::kCopy),
                         kernel_name);

}  // namespace
}  // namespace xenspan::hypervisor::usermode
