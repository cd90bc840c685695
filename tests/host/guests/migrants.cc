// migrants: threads that each know the answer to what they do, until standard input ends, while
// their processors go from host to host (or they choose others themselves). One round each at
// least. Whatever a move loses or doubles is found: registers, stack, thread-local memory,
// wake-ups, bytes in a pipe, signals, the length of a sleep.
#include <immintrin.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ball_table.h"
#include "require.h"

namespace {

// Each on a page of its own: what threads on several hosts write shall not be fought over.
template <typename T>
struct alignas(4096) Apart {
  std::atomic<T> value{};
  operator T() const { return value.load(); }
  T operator=(T wanted) { return value = wanted; }
  T fetch_add(T more) { return value.fetch_add(more); }
};
Apart<bool> stop;
Apart<long> rounds, hops;

double now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Sixteen vector registers hold numbers that depend on every step before; memory holds none.
__attribute__((target("avx2"))) void vectors_in_registers(std::uint64_t seed, long steps,
                                                          std::uint32_t (&result)[16]) {
  alignas(32) std::uint32_t out[16][8];
  __asm__ volatile(
      "vmovd %k[seed], %%xmm0\n vpbroadcastd %%xmm0, %%ymm0\n"
      "vpcmpeqd %%ymm15, %%ymm15, %%ymm15\n"
      "vpsubd %%ymm15, %%ymm0, %%ymm1\n vpsubd %%ymm15, %%ymm1, %%ymm2\n"
      "vpsubd %%ymm15, %%ymm2, %%ymm3\n vpsubd %%ymm15, %%ymm3, %%ymm4\n"
      "vpsubd %%ymm15, %%ymm4, %%ymm5\n vpsubd %%ymm15, %%ymm5, %%ymm6\n"
      "vpsubd %%ymm15, %%ymm6, %%ymm7\n vpsubd %%ymm15, %%ymm7, %%ymm8\n"
      "vpsubd %%ymm15, %%ymm8, %%ymm9\n vpsubd %%ymm15, %%ymm9, %%ymm10\n"
      "vpsubd %%ymm15, %%ymm10, %%ymm11\n vpsubd %%ymm15, %%ymm11, %%ymm12\n"
      "vpsubd %%ymm15, %%ymm12, %%ymm13\n vpsubd %%ymm15, %%ymm13, %%ymm14\n"
      "vpsubd %%ymm15, %%ymm14, %%ymm15\n"
      "1:\n"
      "vpmulld %%ymm1, %%ymm0, %%ymm0\n vpaddd %%ymm2, %%ymm1, %%ymm1\n"
      "vpxor %%ymm3, %%ymm2, %%ymm2\n vpaddd %%ymm4, %%ymm3, %%ymm3\n"
      "vpaddd %%ymm5, %%ymm4, %%ymm4\n vpxor %%ymm6, %%ymm5, %%ymm5\n"
      "vpaddd %%ymm7, %%ymm6, %%ymm6\n vpaddd %%ymm8, %%ymm7, %%ymm7\n"
      "vpxor %%ymm9, %%ymm8, %%ymm8\n vpaddd %%ymm10, %%ymm9, %%ymm9\n"
      "vpaddd %%ymm11, %%ymm10, %%ymm10\n vpxor %%ymm12, %%ymm11, %%ymm11\n"
      "vpaddd %%ymm13, %%ymm12, %%ymm12\n vpaddd %%ymm14, %%ymm13, %%ymm13\n"
      "vpxor %%ymm15, %%ymm14, %%ymm14\n vpaddd %%ymm0, %%ymm15, %%ymm15\n"
      "dec %[steps]\n jnz 1b\n"
      "vmovdqa %%ymm0, 0(%[out])\n vmovdqa %%ymm1, 32(%[out])\n"
      "vmovdqa %%ymm2, 64(%[out])\n vmovdqa %%ymm3, 96(%[out])\n"
      "vmovdqa %%ymm4, 128(%[out])\n vmovdqa %%ymm5, 160(%[out])\n"
      "vmovdqa %%ymm6, 192(%[out])\n vmovdqa %%ymm7, 224(%[out])\n"
      "vmovdqa %%ymm8, 256(%[out])\n vmovdqa %%ymm9, 288(%[out])\n"
      "vmovdqa %%ymm10, 320(%[out])\n vmovdqa %%ymm11, 352(%[out])\n"
      "vmovdqa %%ymm12, 384(%[out])\n vmovdqa %%ymm13, 416(%[out])\n"
      "vmovdqa %%ymm14, 448(%[out])\n vmovdqa %%ymm15, 480(%[out])\n"
      "vzeroupper\n"
      : [steps] "+r"(steps)
      : [seed] "r"(seed), [out] "r"(&out[0][0])
      : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
        "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  for (int i = 0; i < 16; ++i) {
    for (int lane = 1; lane < 8; ++lane) REQUIRE(out[i][lane] == out[i][0]);
    result[i] = out[i][0];
  }
}

void vectors_by_hand(std::uint32_t seed, long steps, std::uint32_t (&v)[16]) {
  for (std::uint32_t i = 0; i < 16; ++i) v[i] = seed + i;
  for (; steps > 0; --steps) {
    v[0] *= v[1], v[1] += v[2], v[2] ^= v[3], v[3] += v[4], v[4] += v[5], v[5] ^= v[6];
    v[6] += v[7], v[7] += v[8], v[8] ^= v[9], v[9] += v[10], v[10] += v[11], v[11] ^= v[12];
    v[12] += v[13], v[13] += v[14], v[14] ^= v[15], v[15] += v[0];
  }
}

void vectors() {
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  static std::atomic<std::uint32_t> seeds{3};
  const std::uint32_t seed = seeds.fetch_add(2);
  constexpr long kSteps = 1'000'000;
  std::uint32_t expected[16], got[16];
  vectors_by_hand(seed, kSteps, expected);
  if (has_avx2)
    vectors_in_registers(seed, kSteps, got);
  else
    vectors_by_hand(seed, kSteps, got);
  REQUIRE(memcmp(expected, got, sizeof got) == 0);
}

// The x87 stack and the rounding mode live in the registers too.
void x87() {
  unsigned short control = 0, wanted = 0x0f7f;  // toward zero, as no C program starts
  __asm__ volatile("fldcw %0" : : "m"(wanted));
  const unsigned mxcsr = 0x7f80;
  _mm_setcsr(mxcsr);
  long double sum = 0;
  for (long i = 1; i <= 1'000'000; ++i) {
    long double part = static_cast<long double>(i);
    __asm__ volatile("faddp" : "=t"(sum) : "0"(sum), "u"(part) : "st(1)");
  }
  __asm__ volatile("fnstcw %0" : "=m"(control));
  REQUIRE(control == wanted);
  REQUIRE((_mm_getcsr() & 0xffc0u) == mxcsr);
  REQUIRE(sum == 500000500000.0L);
}

long deep(long depth, long value) {
  volatile long here[16];
  for (long i = 0; i < 16; ++i) here[i] = value + i;
  const long below = depth == 0 ? 0 : deep(depth - 1, value + 1);
  long sum = 0;
  for (long i = 0; i < 16; ++i) sum += here[i] - i;
  return below + sum / 16;
}

void recursion() {
  constexpr long kDepth = 1500;
  for (int i = 0; i < 200; ++i)
    REQUIRE(deep(kDepth, i) == (kDepth + 1) * i + kDepth * (kDepth + 1) / 2);
}

thread_local long own[600];

void tls() {
  static std::atomic<long> next{1};
  const long mine = next.fetch_add(1);
  const std::string name = "tls-" + std::to_string(mine % 1000);
  REQUIRE(prctl(PR_SET_NAME, name.c_str()) == 0);
  for (long& value : own) value = mine;
  for (int i = 0; i < 3000; ++i) {
    errno = static_cast<int>(mine % 100);
    for (long& value : own) value += 1;
    REQUIRE(errno == mine % 100);
  }
  for (const long value : own) REQUIRE(value == mine + 3000);
  char got[16];
  REQUIRE(prctl(PR_GET_NAME, got) == 0 && name == got);
}

BallTable table;

void play(long side) { table.play(side, 100, stop); }

alignas(4096) int ends[2];
Apart<long> pipe_written;

void write_pipe() {
  for (int i = 0; i < 50; ++i) {
    const long number = pipe_written.fetch_add(1);
    REQUIRE(write(ends[1], &number, sizeof number) == sizeof number);
  }
  usleep(2000);  // the reader waits now
}

void read_pipe() {
  long number = 0;
  for (long expected = 0; read(ends[0], &number, sizeof number) == sizeof number; ++expected)
    REQUIRE(number == expected);
  REQUIRE(number + 1 == pipe_written);
}

// No wait ends early, and none by a signal that is not there.
void sleeps() {
  constexpr double kLength = 0.02;
  const auto check = [](const char* what, double start, bool right) {
    const double took = now() - start;
    if (!right || took < kLength - 0.0011) {
      std::fprintf(stderr, "%s: took %.6f s, errno %d\n", what, took, errno);
      exit(1);
    }
  };
  double start = now();
  const timespec nap{0, 20'000'000};
  check("nanosleep", start, nanosleep(&nap, nullptr) == 0);
  start = now();
  timespec until{};
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += 20'000'000;
  if (until.tv_nsec >= 1'000'000'000) until.tv_nsec -= 1'000'000'000, ++until.tv_sec;
  check("clock_nanosleep", start,
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == 0);
  start = now();
  check("poll", start, poll(nullptr, 0, 20) == 0);
  start = now();
  timeval select_time{0, 20'000};
  check("select", start, select(0, nullptr, nullptr, nullptr, &select_time) == 0);
  start = now();
  static const int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event;
  check("epoll_wait", start, epoll_wait(epoll, &event, 1, 20) == 0);
  start = now();
  sem_t never;
  sem_init(&never, 0, 0);
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += 20'000'000;
  if (until.tv_nsec >= 1'000'000'000) until.tv_nsec -= 1'000'000'000, ++until.tv_sec;
  check("sem_timedwait", start, sem_timedwait(&never, &until) == -1 && errno == ETIMEDOUT);
  start = now();
  sigset_t none;
  sigemptyset(&none);
  sigaddset(&none, SIGUSR2);
  check("sigtimedwait", start, sigtimedwait(&none, nullptr, &nap) == -1 && errno == EAGAIN);
}

// A thread that is signalled while it computes, on a signal stack, and one that takes signals.
Apart<long> handled, on_stack;
char* signal_stack;

void on_usr1(int) {
  char here = 0;
  if (&here >= signal_stack && &here < signal_stack + (64 << 10)) on_stack.fetch_add(1);
  handled.fetch_add(1);
}

Apart<pthread_t> target, waiter;
Apart<long> taken;

void be_signalled() {
  stack_t stack{};
  stack.ss_sp = signal_stack = new char[64 << 10];
  stack.ss_size = 64 << 10;
  REQUIRE(sigaltstack(&stack, nullptr) == 0);
  target = pthread_self();
  double value = 1;
  while (!stop || handled == 0) {
    for (int i = 0; i < 100'000; ++i) value = std::sqrt(value + 1);
    REQUIRE(value > 1.618 && value < 1.6181);
  }
  REQUIRE(on_stack == handled);
  sigset_t usr1;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  REQUIRE(pthread_sigmask(SIG_BLOCK, &usr1, nullptr) == 0);
  target = pthread_t{};
}

void take_signals() {
  sigset_t usr2;
  sigemptyset(&usr2);
  sigaddset(&usr2, SIGUSR2);
  waiter = pthread_self();
  while (!stop || taken == 0) {
    int number = 0;
    REQUIRE(sigwait(&usr2, &number) == 0 && number == SIGUSR2);
    taken.fetch_add(1);
  }
  waiter = pthread_t{};
}

// Each signal arrives once: the next one is sent when it has.
void send_signals() {
  if (const pthread_t thread = target; thread != pthread_t{}) {
    const long before = handled;
    if (pthread_kill(thread, SIGUSR1) == 0)
      while (handled == before && target != pthread_t{}) usleep(1000);
    REQUIRE(handled <= before + 1);
  }
  if (const pthread_t thread = waiter; thread != pthread_t{}) {
    const long before = taken;
    if (pthread_kill(thread, SIGUSR2) == 0)
      while (taken == before && waiter != pthread_t{}) usleep(1000);
    REQUIRE(taken <= before + 1);
  }
}

void hop() {
  cpu_set_t all, one;
  REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
  long done = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all)) continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
    REQUIRE(sched_getcpu() == cpu);
    ++done;
  }
  REQUIRE(sched_setaffinity(0, sizeof all, &all) == 0);
  hops.fetch_add(done);
}

void children() {
  int value = 0;
  std::thread child([&value] { value = 42; });
  child.join();
  REQUIRE(value == 42);
}

}  // namespace

int main() {
  REQUIRE(pipe(ends) == 0);
  struct sigaction action {};
  action.sa_handler = on_usr1;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  REQUIRE(sigaction(SIGUSR1, &action, nullptr) == 0);
  sigset_t usr2;
  sigemptyset(&usr2);
  sigaddset(&usr2, SIGUSR2);
  REQUIRE(pthread_sigmask(SIG_BLOCK, &usr2, nullptr) == 0);

  std::vector<std::thread> once, all;
  once.emplace_back(be_signalled);
  once.emplace_back(take_signals);
  std::thread reader(read_pipe);
  const auto repeat = [&all](auto work) {
    all.emplace_back([work] {
      long done = 0;
      do {
        work();
        ++done;
      } while (!stop);
      rounds.fetch_add(done);
    });
  };
  repeat(vectors);
  repeat(x87);
  repeat(recursion);
  repeat(tls);
  repeat([] { play(0); });
  repeat([] { play(1); });
  repeat(write_pipe);
  repeat(sleeps);
  repeat(hop);
  repeat(children);
  std::thread sender([] {
    while (!stop || target != pthread_t{} || waiter != pthread_t{}) {
      send_signals();
      usleep(2000);
    }
  });
  std::fprintf(stderr, "ready\n");
  char byte;
  while (read(0, &byte, 1) == 1) {
  }
  while (target == pthread_t{} || waiter == pthread_t{}) usleep(1000);
  stop = true;
  {
    std::lock_guard guard(table.lock);
    table.turn.notify_all();
  }
  for (auto& thread : all) thread.join();
  for (auto& thread : once) thread.join();
  sender.join();
  close(ends[1]);
  reader.join();
  std::fprintf(stderr, "%ld rounds, %ld hops, %ld and %ld signals\n", rounds.value.load(),
               hops.value.load(), handled.value.load(), taken.value.load());
  std::printf("ok migrants\n");
}
