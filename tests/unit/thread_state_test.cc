// A thread's state in a packet: what a signal handler found in the registers comes back from a
// handler of another frame, and a packet of a stranger is refused before anything is loaded.
#include "dom0-daemon/hypervisor/usermode/thread_state.h"

#include <gtest/gtest.h>
#include <immintrin.h>
#include <ucontext.h>

#include <csignal>
#include <cstring>
#include <random>

namespace xenspan::hypervisor::usermode {
namespace {

Packet packet;
volatile bool done = false;

Packet whole(const void* fpregs, const ThreadState& state = {}) {
  Packet made;
  Writer out(made);
  out.put(state);
  EXPECT_TRUE(put_vector_state(fpregs, out));
  return made;
}

void save(int, siginfo_t*, void* context) {
  packet = whole(static_cast<ucontext_t*>(context)->uc_mcontext.fpregs);
}

void load(int, siginfo_t*, void* context) {
  Reader in(packet);
  in.get<ThreadState>();
  done = take_vector_state(in, static_cast<ucontext_t*>(context)->uc_mcontext.fpregs);
}

class ThreadStateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = save;
    ::sigaction(SIGUSR1, &action, nullptr);
    action.sa_sigaction = load;
    ::sigaction(SIGUSR2, &action, nullptr);
    std::raise(SIGUSR1);
  }
};

// Raises both signals with system calls only, so that nothing else touches the registers.
__attribute__((target("avx"))) void save_clear_load(const std::uint64_t (&in)[4],
                                                    std::uint64_t (&out)[4]) {
  __asm__ volatile(
      "vmovdqu (%[in]), %%ymm11\n"
      "movl $39, %%eax\n syscall\n movl %%eax, %%ebx\n"    // getpid
      "movl $186, %%eax\n syscall\n movl %%eax, %%r12d\n"  // gettid
      "movl $234, %%eax\n movl %%ebx, %%edi\n movl %%r12d, %%esi\n movl $10, %%edx\n syscall\n"
      "vzeroall\n"
      "movl $234, %%eax\n movl %%ebx, %%edi\n movl %%r12d, %%esi\n movl $12, %%edx\n syscall\n"
      "vmovdqu %%ymm11, (%[out])\n vzeroupper\n"
      :
      : [in] "r"(in), [out] "r"(out)
      : "memory", "cc", "rax", "rbx", "rcx", "rdx", "rdi", "rsi", "r11", "r12", "xmm0", "xmm1",
        "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
        "xmm13", "xmm14", "xmm15");
}

TEST_F(ThreadStateTest, RegistersComeBackFromAnotherFrame) {
  if (__builtin_cpu_supports("avx") == 0) GTEST_SKIP() << "this processor has no AVX";
  const std::uint64_t in[4] = {1, 0x0123456789abcdef, ~std::uint64_t{0}, 42};
  std::uint64_t out[4] = {};
  done = false;
  save_clear_load(in, out);
  EXPECT_TRUE(done);
  EXPECT_EQ(std::memcmp(in, out, sizeof in), 0);
}

TEST_F(ThreadStateTest, AWholePacketPasses) { EXPECT_TRUE(check_thread_state(packet)); }

TEST_F(ThreadStateTest, EveryShorterOrLongerPacketIsRefused) {
  for (std::size_t bytes = 0; bytes < packet.size(); ++bytes)
    EXPECT_FALSE(check_thread_state(Packet(packet.begin(), packet.begin() + long(bytes))))
        << bytes << " of " << packet.size() << " bytes";
  Packet longer = packet;
  longer.push_back(0);
  EXPECT_FALSE(check_thread_state(longer));
}

TEST_F(ThreadStateTest, OtherVersionsSizesAndAddressesAreRefused) {
  const auto changed = [](auto change) {
    auto state = Reader(packet).get<ThreadState>();
    change(state);
    Packet made = packet;
    std::memcpy(made.data(), &state, sizeof state);
    return check_thread_state(made);
  };
  EXPECT_TRUE(changed([](ThreadState&) {}));
  EXPECT_FALSE(changed([](ThreadState& state) { ++state.version; }));
  EXPECT_FALSE(changed([](ThreadState& state) { --state.bytes; }));
  EXPECT_FALSE(changed([](ThreadState& state) { state.fs = std::uint64_t{1} << 47; }))
      << "not canonical: loading it would end the slice";
  EXPECT_FALSE(changed([](ThreadState& state) { state.registers[16] = ~std::uint64_t{0}; }));
}

// Whatever a stranger writes behind the fixed part: refused, or loaded without a byte outside the
// area.
TEST_F(ThreadStateTest, RandomComponentsNeverLeaveTheArea) {
  std::mt19937_64 random(1);
  std::vector<std::uint8_t> area(16384 + 64);
  for (int round = 0; round < 2000; ++round) {
    Packet made = packet;
    for (int changes = 0; changes < 4; ++changes)
      made[sizeof(ThreadState) + random() % (made.size() - sizeof(ThreadState))] =
          static_cast<std::uint8_t>(random() % 3 == 0 ? random() : random() % 16);
    // An area without extensions: everything behind the legacy part must stay as it is.
    std::fill(area.begin(), area.end(), std::uint8_t{0xa5});
    Reader in(made);
    in.get<ThreadState>();
    Packet copy = made;
    take_vector_state(in, area.data());
    for (std::size_t at = 416; at < area.size(); ++at) ASSERT_EQ(area[at], 0xa5) << at;
    ASSERT_EQ(copy, made);
  }
}

TEST_F(ThreadStateTest, ReservedBitsOfTheControlWordAreDropped) {
  Packet made = packet;
  const std::uint32_t bad = 0xffff1f80, none = 0;
  std::memcpy(made.data() + sizeof(ThreadState) + 24, &bad, sizeof bad);
  std::vector<std::uint8_t> area(512);
  std::memcpy(area.data() + 28, &none, sizeof none);
  Reader in(made);
  in.get<ThreadState>();
  take_vector_state(in, area.data());
  std::uint32_t mxcsr = 0;
  std::memcpy(&mxcsr, area.data() + 24, sizeof mxcsr);
  EXPECT_EQ(mxcsr, 0x1f80u) << "XRSTOR would fail and end the process";
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
